"""ActiveMQ Classic. Sources: ActiveMQ, Stomp, Virtual Destinations, Delay and Schedule Message Delivery.

An exchange is a virtual topic, of which each queue that is bound has a copy; what of it the queue does not want is
acknowledged unread, since the subject is a header that the server does not look at. It gives a message back only where the
subscription ends that brought it, so there is one for each message that may be in hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, final

import attrs
from typing_extensions import override

from kernel import Envelope, pattern_matches
from kernel.abc import Binding, Capability, Queue

from ..core import Frame, named
from ..link.link import Link, OnWritten
from ..link.receipts import Receipt
from .dialect import Dialect, Supply, Wish
from .letters import EXCHANGE, SUBJECT

_ID: Final = "kernel-id"
_QUEUE: Final = "/queue/"
_MOST: Final = 200
"""Subscriptions of one consumer, for each place that it takes from."""
_SPECIAL: Final = frozenset("~.*>,:?/# ")
_CAPABILITIES: Final = frozenset({Capability.DEAD_LETTERS, Capability.DURABLE, Capability.REQUEST_REPLY})


@final
@attrs.frozen(repr=False)
class ActiveMq(Dialect):
    """ActiveMQ Classic 5.17 or later."""

    _has_scheduler: bool
    _queues: frozenset[str]
    """Those that others fill."""

    @property
    @override
    def capabilities(self) -> frozenset[Capability]:
        return _CAPABILITIES | {Capability.DELAY} if self._has_scheduler else _CAPABILITIES

    @property
    @override
    def keeps_exclusive(self) -> bool:
        return False

    @override
    def may_consume(self, queue: str) -> bool:
        return queue in self._queues

    @override
    def queue_problems(self, queue: Queue) -> Sequence[str]:
        return [] if queue.options is None else [f'queue "{queue.name}" has `options`: ActiveMQ knows none of them']

    @override
    def declarations(self, queue: Queue, bindings: Sequence[Binding]) -> Sequence[Frame]:
        # To look into a queue makes it exist, and takes nothing.
        return [
            Frame("SUBSCRIBE", {"destination": place, "browser": "true"}) for place in _places(queue.name, bindings)
        ]

    @override
    def destination(self, *, exchange: str, subject: str) -> str:
        if exchange:
            return f"/topic/VirtualTopic.{_word_of(exchange)}"
        return subject if subject.startswith("/") else _QUEUE + _written(subject)

    @override
    def outside(self, envelope: Envelope, *, exchange: str) -> Mapping[str, str]:
        headers = {_ID: envelope.id}
        if exchange:
            headers[EXCHANGE] = exchange
        if envelope.reply_to:
            headers["reply-to"] = self.destination(exchange="", subject=envelope.reply_to)
        return headers

    @override
    def id_of(self, headers: Mapping[str, str]) -> str:
        return headers.get(_ID) or headers.get("message-id", "")

    @override
    def reply_to_of(self, headers: Mapping[str, str]) -> str:
        return _read(headers.get("reply-to", ""))

    @override
    def subject_of(self, headers: Mapping[str, str]) -> str:
        where = headers.get("destination", "")
        return _read(where) if where.startswith(_QUEUE) else where.removeprefix("/topic/").removeprefix("VirtualTopic.")

    @override
    def death_of(self, headers: Mapping[str, str], *, queue: str) -> tuple[str, str] | None:
        return None

    @override
    def supply(self, wish: Wish) -> Supply:
        return ActiveSupply(wish)

    @override
    def holds(self, delay: float) -> Mapping[str, str] | None:
        return {"AMQ_SCHEDULED_DELAY": str(math.ceil(delay * 1000))}


@final
@attrs.define(eq=False, repr=False)
class ActiveSupply(Supply):
    """Many subscriptions, each of which brings one message at a time."""

    _wish: Wish
    _link: Link | None = attrs.field(default=None, init=False)
    _slots: dict[str, str] = attrs.field(factory=dict[str, str], init=False)
    """Id of a subscription -> where it takes from."""
    _replaced: dict[str, str] = attrs.field(factory=dict[str, str], init=False)
    """Id of a subscription -> the last message that it brought of which a copy was sent: it is not in hand any more, though
    the answer may not have come; the next one may have."""
    _last: int = attrs.field(default=0, init=False)
    _is_left: bool = attrs.field(default=False, init=False)

    @override
    async def begin(self, link: Link) -> None:
        self._link = link
        places = list(_places(self._wish.queue, self._wish.bindings))
        frames = [self._next(place) for _ in range(min(self._wish.prefetch, _MOST)) for place in places]
        for frame in frames[:-1]:
            link.write(frame)
        await link.request(frames[-1])

    @override
    def wants(self, frame: Frame) -> bool:
        if not self._wish.bindings:
            return True
        exchange = frame.headers.get(EXCHANGE, "")
        patterns = [binding.pattern for binding in self._wish.bindings if binding.exchange == exchange]
        subject = frame.headers.get(SUBJECT, "")
        return not patterns or any(pattern_matches(pattern, subject) for pattern in patterns)

    @override
    def ack(self, frame: Frame) -> None:
        self._open.acknowledge(frame)
        if self._is_left:
            self._close(frame)

    @override
    def give_back(self, frame: Frame) -> None:
        place = self._close(frame)
        if place is not None and not self._is_left:
            self._open.write(self._next(place))

    @override
    def put_aside(self, frame: Frame) -> None:
        self._open.write(Frame("NACK", named(frame)))
        if self._is_left:
            self._close(frame)

    @override
    async def replace(self, frame: Frame, copy: Frame, *, on_written: OnWritten) -> bool:
        link, transaction = self._open, {"transaction": f"kernel-{frame.headers.get('ack', '')}"}
        copy = Frame(copy.command, {**copy.headers, **transaction}, copy.body)
        link.encode(copy)  # what cannot be written must not leave a transaction open
        link.write(Frame("BEGIN", transaction))
        link.write(copy)
        link.write(Frame("ACK", {**named(frame), **transaction}))

        def written(receipt: Receipt) -> None:
            on_written(receipt)
            self._replaced[frame.headers.get("subscription", "")] = _told(frame)
            if self._is_left:
                self._close(frame)  # at once: the subscription that has room again would get the copy

        await link.request(Frame("COMMIT", transaction), on_written=written)
        return True

    @override
    async def leave(self, untaken: Callable[[], Sequence[Frame]], *, taken: Sequence[Frame]) -> None:
        link, self._is_left = self._open, True
        if not taken:
            untaken()
            await link.aclose()  # whatever is not settled is delivered to others
            return
        held = {
            slot for frame in taken if self._replaced.get(slot := frame.headers.get("subscription", "")) != _told(frame)
        }
        for slot in [slot for slot in self._slots if slot not in held]:
            del self._slots[slot]
            link.write(Frame("UNSUBSCRIBE", {"id": slot}))
        # What comes until this is answered was given back already.
        transaction = {"transaction": "kernel-left"}
        link.write(Frame("BEGIN", transaction))
        await link.request(Frame("ABORT", transaction))
        untaken()

    def _next(self, place: str) -> Frame:
        self._last += 1
        slot = f"slot-{self._last}"
        self._slots[slot] = place
        own = {"id": slot, "destination": place, "ack": "client-individual", "activemq.prefetchSize": "1"}
        return Frame("SUBSCRIBE", own)

    def _close(self, frame: Frame) -> str | None:
        """End the subscription that brought a message; what it has not settled is delivered again."""
        slot = frame.headers.get("subscription", "")
        place = self._slots.pop(slot, None)
        self._replaced.pop(slot, None)
        if place is not None:
            self._open.write(Frame("UNSUBSCRIBE", {"id": slot}))
        return place

    @property
    def _open(self) -> Link:
        assert self._link is not None
        return self._link


def _places(queue: str, bindings: Sequence[Binding]) -> Iterator[str]:
    """Yield where the messages of a queue are: those that were sent to it, and those of each exchange."""
    yield _QUEUE + _written(queue)
    for exchange in dict.fromkeys(binding.exchange for binding in bindings):
        yield f"{_QUEUE}Consumer.{_word_of(queue)}.VirtualTopic.{_word_of(exchange)}"


def _told(frame: Frame) -> str:
    """Return by what an acknowledgement tells a message from all others of its connection."""
    return frame.headers.get("ack") or frame.headers.get("message-id", "")


def _word_of(name: str) -> str:
    """Return a name as one word of a destination."""
    return "".join(f"~{ord(char):02X}" if char in _SPECIAL else char for char in name)


def _written(name: str) -> str:
    """Return a name as a destination, whose words may be several."""
    return ".".join(map(_word_of, name.split(".")))


def _read(place: str) -> str:
    """Return the name of a queue; what is none, such as a place of somebody's own, stays as it is."""
    if not place.startswith(_QUEUE):
        return place
    first, *rest = place.removeprefix(_QUEUE).split("~")
    return first + "".join(_char_of(part) for part in rest)


def _char_of(part: str) -> str:
    try:
        return chr(int(part[:2], 16)) + part[2:]
    except ValueError:
        return f"~{part}"
