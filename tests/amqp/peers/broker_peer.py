# /// script
# requires-python = ">=3.11"
# dependencies = ["python-qpid-proton==0.40.0"]
# ///
"""A small broker on qpid-proton's own Container: it makes queues as they are attached to, as ActiveMQ Artemis does.

An address with `::` is a queue at an address: what is sent to the address is copied to each of its queues. It counts
deliveries that failed, and holds back what has `x-opt-delivery-delay`.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict, deque
from typing import Any

from _lines import commands, say
from proton import Delivery, Endpoint, Message, symbol
from proton.handlers import MessagingHandler
from proton.reactor import Container

NAMES = {
    Delivery.ACCEPTED: "accepted",
    Delivery.REJECTED: "rejected",
    Delivery.RELEASED: "released",
    Delivery.MODIFIED: "modified",
}
DELAY = symbol("x-opt-delivery-delay")


def matches(pattern: str, address: str) -> bool:
    """Whether a pattern of words, `*` and `#`, is that of an address."""
    words = {"*": r"[^.]+", "#": r".*"}
    return (
        re.fullmatch(r"\.".join(words.get(word, re.escape(word)) for word in pattern.split(".")), address) is not None
    )


class Broker(MessagingHandler):
    """Queues in memory, and the links that take from them."""

    def __init__(self) -> None:
        super().__init__(auto_accept=False, auto_settle=False, prefetch=100)
        self.queues: dict[str, deque[Message]] = defaultdict(deque)
        self.takers: dict[str, list[Any]] = defaultdict(list)
        self.held: dict[str, Message] = {}
        self.outcomes: list[str] = []

    def on_start(self, event: Any) -> None:
        self.acceptor = event.container.listen("amqp://127.0.0.1:0")
        say(port=self.acceptor._selectable._delegate.getsockname()[1])
        say(ready=True)
        self.container = event.container

    def on_link_opening(self, event: Any) -> None:
        link = event.link
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        if link.is_sender and link.remote_source.address:
            self.queues.setdefault(link.remote_source.address, deque())
            self.takers[link.remote_source.address].append(link)

    def on_sendable(self, event: Any) -> None:
        self._serve(event.link.source.address)

    def on_link_closing(self, event: Any) -> None:
        self._leave(event.link)

    def on_session_closing(self, event: Any) -> None:
        for takers in list(self.takers.values()):
            for link in [link for link in takers if link.session == event.session]:
                self._leave(link)

    def on_disconnected(self, event: Any) -> None:
        for takers in list(self.takers.values()):
            for link in [link for link in takers if link.connection == event.connection]:
                self._leave(link)

    def _leave(self, link: Any) -> None:
        for takers in self.takers.values():
            if link in takers:
                takers.remove(link)

    def on_message(self, event: Any) -> None:
        address, message = event.link.target.address, event.message
        self.accept(event.delivery)
        event.delivery.settle()
        wait = (message.annotations or {}).get(DELAY, 0) / 1000
        if wait:
            self.container.schedule(wait, Later(self, address, message))
        else:
            self.put(address, message)

    def put(self, address: str, message: Message) -> None:
        for queue in list(self.queues) if address not in self.queues else [address]:
            if queue == address or ("::" in queue and matches(queue.partition("::")[0], address)):
                self.queues[queue].append(message)
                self._serve(queue)
        if address not in self.queues and not any("::" in queue for queue in self.queues):
            self.queues[address].append(message)

    def _serve(self, queue: str) -> None:
        waiting = self.queues.get(queue)
        while waiting:
            link = next(
                (one for one in self.takers[queue] if one.credit > 0 and one.state & Endpoint.REMOTE_ACTIVE), None
            )
            if link is None:
                return
            message = waiting.popleft()
            delivery = link.send(message)
            self.held[f"{link.name}/{delivery.tag}"] = message

    def on_delivery(self, event: Any) -> None:
        delivery, link = event.delivery, event.link
        if not (link and link.is_sender and delivery.updated):
            return
        message = self.held.pop(f"{link.name}/{delivery.tag}", None)
        state = delivery.remote_state
        self.outcomes.append(NAMES.get(state, str(state)))
        failed = state == Delivery.MODIFIED and delivery.remote.failed
        if message is not None and state in {Delivery.RELEASED, Delivery.MODIFIED}:
            message.delivery_count += bool(failed)
            self.queues[link.source.address].appendleft(message)
        delivery.settle()
        self._serve(link.source.address)


class Later:
    """A message that waits."""

    def __init__(self, broker: Broker, address: str, message: Message) -> None:
        self.broker, self.address, self.message = broker, address, message

    def on_timer_task(self, event: Any) -> None:
        self.broker.put(self.address, self.message)


def main() -> None:
    broker = Broker()
    threading.Thread(target=Container(broker).run, daemon=True).start()
    for command in commands():
        if command["do"] == "outcomes":
            say(result=broker.outcomes)


if __name__ == "__main__":
    main()
