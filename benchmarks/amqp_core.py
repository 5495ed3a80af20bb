"""CPU time of the AMQP core for one message: received, published, acknowledged, confirmed. No broker, no socket.

    uv run python benchmarks/amqp_core.py

Microseconds, the best of many rounds of 100 messages with bodies of 200 bytes; ids differ from message to message.
"Few" properties are content type, delivery mode and message id; "many" are these, correlation id, reply address, time
and five headers.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Final

from kernel_amqp.core import Channel, Connection, Properties, Settings
from pamqp import body, commands, frame, header

MESSAGES: Final = 100
ROUNDS: Final = 200
BODY: Final = b"x" * 200


def main() -> None:
    for name, make in (("no", none), ("few", few), ("many", many)):
        connection, _ = opened()
        wire = received([make(number) for number in range(MESSAGES)])
        show(f"receive, {name} properties", lambda connection=connection, wire=wire: connection.receive(wire))
        connection, channel = opened()
        batch = [make(number) for number in range(MESSAGES)]
        show(f"publish, {name} properties", lambda c=connection, h=channel, b=batch: publish(c, h, b))
    connection, channel = opened()
    show("acknowledge", lambda: acknowledge(connection, channel))
    show("make properties, many", lambda: [many(number) for number in range(MESSAGES)])


def show(name: str, action: Callable[[], object]) -> None:
    seconds = min(timeit.repeat(action, number=1, repeat=ROUNDS)) / MESSAGES
    print(f"{name:28}{seconds * 1e6:8.2f} us")


def none(_number: int) -> Properties:
    return Properties()


def few(number: int) -> Properties:
    return Properties(content_type="application/json", delivery_mode=2, message_id=f"5e0c8e7a4b4f4f7c{number:016x}")


def many(number: int) -> Properties:
    return Properties(
        content_type="application/json",
        delivery_mode=2,
        message_id=f"5e0c8e7a4b4f4f7c{number:016x}",
        correlation_id=f"15e0c8e7a4b4f4f7{number:016x}",
        reply_to="replies-5e0c8e7a4b4f4f7c",
        timestamp=1_700_000_000 + number,
        headers={"id": f"{number:032x}", "attempt": 1, "deadline": 1.5, "first": True, "stack": ["a", "b"]},
    )


def opened() -> tuple[Connection, Channel]:
    """Return an open connection with an open channel."""
    connection = Connection(Settings(response="\0guest\0guest"))
    connection.start()
    connection.receive(frame.marshal(commands.Connection.Start(0, 9, {}, "PLAIN", "en_US"), 0))
    connection.receive(frame.marshal(commands.Connection.Tune(2047, 131072, 60), 0))
    connection.receive(frame.marshal(commands.Connection.OpenOk(), 0))
    channel = connection.open_channel()
    connection.receive(frame.marshal(commands.Channel.OpenOk(), channel.number))
    connection.data_to_send()
    return connection, channel


def received(batch: list[Properties]) -> bytes:
    """Return deliveries with these properties, as a broker sends them."""
    wire = b""
    for number, properties in enumerate(batch):
        method = commands.Basic.Deliver("ctag1.2b8a7c6d", number + 1, exchange="events", routing_key="order.paid")
        fields = {name: getattr(properties, name) for name in properties.__slots__ if hasattr(properties, name)}
        fields["message_type"] = fields.pop("type")
        fields["timestamp"] = None
        fields.pop("__weakref__", None)
        head = header.ContentHeader(0, len(BODY), commands.Basic.Properties(**fields))
        wire += b"".join(frame.marshal(part, 1) for part in (method, head, body.ContentBody(BODY)))
    return wire


def publish(connection: Connection, channel: Channel, batch: list[Properties]) -> None:
    for properties in batch:
        channel.publish(exchange="events", routing_key="order.paid", properties=properties, body=BODY)
    connection.data_to_send()


def acknowledge(connection: Connection, channel: Channel) -> None:
    for tag in range(MESSAGES):
        channel.ack(tag)
    connection.data_to_send()


if __name__ == "__main__":
    main()
