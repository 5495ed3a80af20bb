"""How fast RabbitMQ itself is here, for a client that is busy with each message for some time and does nothing else.

    uv run python benchmarks/amqp_broker.py [--busy 0 20 40] [--rounds 5] [--messages 20000]

No client can be faster than the one that is busy for as long, on the same machine: this is how far the rates of `amqp.py`
can go. It is the AMQP core on a blocking socket, which takes about 5 us a message itself, and it works as `amqp.py` has
everybody do: it consumes with prefetch 100, acknowledging in the pieces that are best for the broker, and publishes
persistent, mandatory messages of which 50 wait for their confirms at any time, straight to a queue and through a topic
exchange. Rounds take turns, and the medians are printed.
Needs RabbitMQ on 127.0.0.1:5672.
"""

from __future__ import annotations

import argparse
import secrets
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, TypeVar, final

import attrs
from kernel_amqp.core import (
    Channel,
    ChannelOpened,
    Confirmed,
    Connection,
    Delivered,
    Event,
    Opened,
    Properties,
    Replied,
    Settings,
)
from pamqp import commands
from pamqp.base import Frame

BROKER: Final = ("127.0.0.1", 5672)
TOPIC: Final = "amq.topic"
QUEUE: Final = f"bench-{secrets.token_hex(4)}"
PREFETCH: Final = 100
TOGETHER: Final = 32
"""Deliveries that are acknowledged together: less makes more work for the broker, more makes it wait for us."""
WAITING: Final = 50
"""Messages without a confirm."""
FILLING: Final = 1_000
BODY: Final = b'{"id": 12345, "sku": "tea", "quantity": 2, "note": "' + b"x" * 150 + b'"}'
PROPERTIES: Final = Properties(content_type="application/json", delivery_mode=2, message_id="b" * 32)

_EventT = TypeVar("_EventT", bound=Event)


@final
@attrs.define(eq=False)
class Client:
    """A connection with one channel, on a blocking socket."""

    stream: socket.socket
    connection: Connection
    channel: Channel = attrs.field(init=False)
    _events: list[Event] = attrs.field(factory=list[Event], init=False)

    def __attrs_post_init__(self) -> None:
        self.connection.start()
        self.wait_for(Opened)
        self.channel = self.connection.open_channel()
        self.wait_for(ChannelOpened)

    def flush(self) -> None:
        """Send what the core has to send."""
        self.stream.sendall(self.connection.data_to_send())

    def receive(self) -> list[Event]:
        """Send, then wait for something and return what it means."""
        self.flush()
        data = self.stream.recv(65536)
        if not data:
            raise SystemExit("the broker closed the connection")
        return self.connection.receive(data)

    def wait_for(self, kind: type[_EventT]) -> _EventT:
        """Return the next event of a kind; those before it are dropped, those after it are kept for `events`."""
        while True:
            events = self.receive()
            for at, event in enumerate(events):
                if isinstance(event, kind):
                    self._events = events[at + 1 :]
                    return event

    def events(self) -> Iterator[list[Event]]:
        """Return all that comes, as it comes."""
        while True:
            events, self._events = self._events, []
            yield events or self.receive()

    def call(self, method: Frame) -> None:
        """Ask, and wait for the answer."""
        self.channel.call(method)
        self.wait_for(Replied)


def opened() -> Client:
    """Return a client that is connected."""
    stream = socket.create_connection(BROKER)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Client(stream, Connection(Settings(response="\0guest\0guest", heartbeat=0)))


def be_busy(seconds: float) -> None:
    """Take CPU time, as a client does that has something to do for a message."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def publish(count: int, busy: float, *, waiting: int = WAITING, exchange: str = "") -> float:
    """Return how many messages a second are confirmed, the queue being empty at the start."""
    client = opened()
    client.call(commands.Queue.Purge(queue=QUEUE))
    client.call(commands.Confirm.Select())
    began = time.perf_counter()
    send(client, min(waiting, count), busy, exchange)
    sent, confirmed = min(waiting, count), 0
    for events in client.events():
        confirmed += sum(event.last - event.first + 1 for event in events if isinstance(event, Confirmed))
        more = min(count, confirmed + waiting) - sent
        send(client, more, busy, exchange)
        sent += more
        if confirmed == count:
            break
    return count / (time.perf_counter() - began)


def send(client: Client, count: int, busy: float, exchange: str) -> None:
    """Publish what the queue gets, with the next `receive`."""
    for _ in range(count):
        be_busy(busy)
        client.channel.publish(exchange=exchange, routing_key=QUEUE, properties=PROPERTIES, body=BODY, mandatory=True)


def consume(count: int, busy: float) -> float:
    """Return how many messages a second are handled, the queue holding as many."""
    publish(count, 0, waiting=FILLING)
    client = opened()
    client.call(commands.Basic.Qos(prefetch_count=PREFETCH))
    client.call(commands.Basic.Consume(queue=QUEUE))
    began, handled = time.perf_counter(), 0
    for events in client.events():
        for event in events:
            if isinstance(event, Delivered):
                be_busy(busy)
                client.channel.ack(event.delivery_tag)
                handled += 1
                if handled % TOGETHER == 0:
                    client.flush()
        if handled == count:
            break
    rate = count / (time.perf_counter() - began)
    client.call(commands.Queue.Purge(queue=QUEUE))  # the last acknowledgements arrive before it
    return rate


WORK: Final[dict[str, Callable[[int, float], float]]] = {
    "consume": consume,
    "publish": publish,
    "publish-topic": partial(publish, exchange=TOPIC),
}


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=float, nargs="+", default=[0.0, 20.0, 40.0], metavar="US", help="us a message")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=20_000)
    arguments = parser.parse_args()
    keeper = opened()
    keeper.call(commands.Queue.Declare(queue=QUEUE, durable=True))
    keeper.call(commands.Queue.Bind(queue=QUEUE, exchange=TOPIC, routing_key=QUEUE))
    rates: dict[tuple[str, float], list[float]] = {(name, busy): [] for name in WORK for busy in arguments.busy}
    try:
        for _ in range(arguments.rounds):
            for (name, busy), taken in rates.items():
                taken.append(WORK[name](arguments.messages, busy / 1e6))
    finally:
        keeper.call(commands.Queue.Delete(queue=QUEUE))
    print(f"{arguments.rounds} rounds of {arguments.messages}")
    for (name, busy), taken in rates.items():
        low, middle, high = min(taken), statistics.median(taken), max(taken)
        print(f"  {name:13} busy for {busy:3.0f} us: {middle:8,.0f} /s ({low:,.0f} to {high:,.0f})")


if __name__ == "__main__":
    main()
