"""The core against a real RabbitMQ, over a plain blocking socket: it needs no event loop."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Generator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import attrs
import pytest
from kernel_amqp.core import (
    Channel,
    ChannelClosed,
    ChannelOpened,
    Closed,
    Confirmed,
    Connection,
    ConsumerCancelled,
    Delivered,
    Event,
    Opened,
    Properties,
    Replied,
    Returned,
    Settings,
    TooLarge,
)
from pamqp import commands

_EventT = TypeVar("_EventT", bound=Event)

EVERY_TYPE: dict[str, object] = {
    "text": "straße",
    "bytes": b"\x00\xff",
    "int": -5,
    "long": 1 << 40,
    "float": 2.5,
    "bool": True,
    "none": None,
    "decimal": Decimal("1.25"),
    "time": datetime(2026, 11, 22, tzinfo=UTC),
    "list": [1, "two", [3.0]],
    "dict": {"in": {"side": None}},
}


class Blocking:
    """A connection over a blocking socket."""

    def __init__(self, where: tuple[str, int], settings: Settings) -> None:
        self.socket = socket.create_connection(where, timeout=5.0)
        self.core = Connection(settings)
        self.events: list[Event] = []
        self.core.start()

    def wait(self, kind: type[_EventT]) -> _EventT:
        """Return the next event of a kind; what comes before it stays."""
        while True:
            self.socket.sendall(self.core.data_to_send())
            for event in self.events:
                if isinstance(event, kind):
                    self.events.remove(event)
                    return event
            data = self.socket.recv(65536)
            assert data, f"the broker ended the connection; {self.events}"
            self.events += self.core.receive(data)

    def open_channel(self) -> Channel:
        channel = self.core.open_channel()
        assert self.wait(ChannelOpened).channel == channel.number
        return channel

    def call(self, channel: Channel, method: Any) -> Any:
        channel.call(method)
        return self.wait(Replied).method


@pytest.fixture
def blocking(rabbitmq: tuple[str, int]) -> Generator[Blocking]:
    connection = Blocking(rabbitmq, Settings(response="\0guest\0guest", frame_max=4096, max_message_bytes=20_000))
    assert connection.wait(Opened).server_properties["product"] == "RabbitMQ"
    yield connection
    connection.core.close()
    assert connection.wait(Closed).code == 200
    connection.socket.close()


@pytest.fixture
def queue(blocking: Blocking) -> str:
    """A queue that goes away with the connection."""
    name = f"core-{uuid.uuid4()}"
    channel = blocking.open_channel()
    blocking.call(channel, commands.Queue.Declare(queue=name, exclusive=True))
    channel.close()
    blocking.wait(Replied)
    return name


@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 20_000])
def test_a_message_comes_back_as_it_was_sent(blocking: Blocking, queue: str, size: int) -> None:
    channel = blocking.open_channel()
    blocking.call(channel, commands.Confirm.Select())
    blocking.call(channel, commands.Basic.Consume(queue=queue, consumer_tag="c"))
    sent = Properties(
        content_type="application/json",
        content_encoding="utf-8",
        headers=EVERY_TYPE,
        delivery_mode=2,
        priority=3,
        correlation_id="correlation",
        reply_to="reply",
        expiration="60000",
        message_id="message",
        timestamp=1_700_000_000,
        type="type",
        user_id="guest",
        app_id="app",
    )

    number = channel.publish(exchange="", routing_key=queue, properties=sent, body=bytes(size))
    delivered, confirmed = blocking.wait(Delivered), blocking.wait(Confirmed)
    channel.ack(delivered.delivery_tag)

    assert (confirmed.first, confirmed.last, confirmed.taken) == (number, number, True)
    assert attrs.astuple(delivered.properties) == attrs.astuple(sent)
    assert (delivered.body, delivered.exchange, delivered.routing_key) == (bytes(size), "", queue)


def test_settling_is_seen_by_the_broker(blocking: Blocking, queue: str) -> None:
    channel = blocking.open_channel()
    blocking.call(channel, commands.Basic.Consume(queue=queue, consumer_tag="c"))
    for number in range(3):
        channel.publish(exchange="", routing_key=queue, properties=Properties(), body=str(number).encode())
    first, second, third = (blocking.wait(Delivered) for _ in range(3))

    channel.ack(first.delivery_tag)
    channel.nack(second.delivery_tag, requeue=True)
    channel.nack(third.delivery_tag, requeue=False)
    again = blocking.wait(Delivered)
    channel.ack(again.delivery_tag)
    blocking.call(channel, commands.Basic.Cancel("c"))

    assert (again.body, again.redelivered) == (b"1", True)
    assert blocking.call(channel, commands.Queue.Purge(queue=queue)).message_count == 0


def test_a_message_that_is_too_large_is_skipped_and_can_be_refused(blocking: Blocking, queue: str) -> None:
    channel = blocking.open_channel()
    blocking.call(channel, commands.Basic.Consume(queue=queue, consumer_tag="c"))
    for size in (20_001, 3):
        channel.publish(exchange="", routing_key=queue, properties=Properties(), body=bytes(size))

    large = blocking.wait(TooLarge)
    channel.nack(large.delivery_tag, requeue=False)

    assert large.size == 20_001
    assert blocking.wait(Delivered).body == bytes(3)


def test_an_unroutable_message_comes_back_before_its_confirm(blocking: Blocking) -> None:
    channel = blocking.open_channel()
    blocking.call(channel, commands.Confirm.Select())

    channel.publish(
        exchange="",
        routing_key=f"no-{uuid.uuid4()}",
        properties=Properties(message_id="m"),
        body=b"b" * 9000,
        mandatory=True,
    )
    blocking.wait(Confirmed)

    [returned] = blocking.events
    assert isinstance(returned, Returned)
    assert (returned.code, returned.text, returned.properties.message_id) == (312, "NO_ROUTE", "m")


def test_an_error_closes_one_channel(blocking: Blocking) -> None:
    other, channel = blocking.open_channel(), blocking.open_channel()

    channel.call(commands.Queue.Declare(queue=f"no-{uuid.uuid4()}", passive=True))
    closed = blocking.wait(ChannelClosed)

    assert (closed.channel, closed.code, closed.method) == (channel.number, 404, "queue.declare")
    assert blocking.call(other, commands.Basic.Qos(prefetch_count=1)).name == "Basic.QosOk"
    assert blocking.open_channel().number == channel.number


def test_an_error_may_cross_a_close(blocking: Blocking) -> None:
    """The broker answers both closes; the number can be used again."""
    channel = blocking.open_channel()
    channel.publish(exchange=f"no-{uuid.uuid4()}", routing_key="", properties=Properties(), body=b"")
    channel.close()

    assert blocking.wait(ChannelClosed).code == 404
    others = [blocking.open_channel() for _ in range(2)]

    assert channel.number in {other.number for other in others}
    assert blocking.call(others[0], commands.Basic.Qos(prefetch_count=1)).name == "Basic.QosOk"


def test_a_consumer_whose_queue_goes_away_is_cancelled(blocking: Blocking, queue: str) -> None:
    channel, other = blocking.open_channel(), blocking.open_channel()
    blocking.call(channel, commands.Basic.Consume(queue=queue, consumer_tag="c"))

    blocking.call(other, commands.Queue.Delete(queue=queue))

    assert blocking.wait(ConsumerCancelled) == ConsumerCancelled(channel.number, "c")


@pytest.mark.parametrize("name", ["spaces and <brackets>", "x" * 200, "straße"])
def test_names_that_pamqp_does_not_know_are_fine(blocking: Blocking, name: str) -> None:
    channel = blocking.open_channel()
    name = f"core-{uuid.uuid4()}-{name}"
    method = commands.Queue.Declare(exclusive=True)
    method.queue = name

    assert blocking.call(channel, method).queue == name


def test_a_key_and_a_header_that_are_no_utf8_come_back_as_they_were(blocking: Blocking, queue: str) -> None:
    channel = blocking.open_channel()
    exchange = f"core-{uuid.uuid4()}"
    blocking.call(channel, commands.Exchange.Declare(exchange=exchange, exchange_type="fanout", auto_delete=True))
    blocking.call(channel, commands.Queue.Bind(queue=queue, exchange=exchange))
    blocking.call(channel, commands.Basic.Consume(queue=queue, consumer_tag="c"))

    odd = b"\xff\xfe".decode("utf-8", "surrogateescape")
    channel.publish(
        exchange=exchange, routing_key=odd, properties=Properties(message_id=odd, headers={odd: 1}), body=b""
    )
    delivered = blocking.wait(Delivered)

    assert (delivered.routing_key, delivered.properties.message_id, delivered.properties.headers) == (
        odd,
        odd,
        {odd: 1},
    )


@pytest.mark.parametrize(
    ("settings", "code"),
    [(Settings(response="\0guest\0wrong"), 403), (Settings(response="\0guest\0guest", virtual_host="none"), 530)],
    ids=["password", "virtual host"],
)
def test_a_refused_login_says_why(rabbitmq: tuple[str, int], settings: Settings, code: int) -> None:
    connection = Blocking(rabbitmq, settings)

    closed = connection.wait(Closed)
    connection.socket.close()

    assert closed.code == code
    assert "wrong" not in repr(connection.core)
