"""The broker's end of a connection without I/O: frames of pamqp, so that nothing of the core is checked by itself."""

from __future__ import annotations

from typing import Any

from kernel_amqp.core import Channel, ChannelOpened, Connection, Event, Opened, Settings
from pamqp import body, commands, frame, header, heartbeat
from pamqp.base import Frame

SETTINGS = Settings(response="\0user\0secret", heartbeat=10.0)
START = commands.Connection.Start(0, 9, {"product": "far side"}, "PLAIN EXTERNAL", "en_US")
TUNE = commands.Connection.Tune(2047, 131072, 60)
LEAST_FRAME = 4096


def frames(channel: int, *values: Any) -> bytes:
    """Return the bytes of methods, headers, bodies and heartbeats on a channel."""
    return b"".join(frame.marshal(value, channel) for value in values)


def raw(kind: int, channel: int, payload: bytes) -> bytes:
    """Return a frame with any payload."""
    return bytes((kind,)) + channel.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + b"\xce"


def content(channel: int, method: Frame, payload: bytes, *, room: int = 131064, **properties: Any) -> bytes:
    """Return a method that carries a message, with the message in body frames of at most `room` bytes."""
    head = header.ContentHeader(0, len(payload), commands.Basic.Properties(**properties))
    parts = [body.ContentBody(payload[at : at + room]) for at in range(0, len(payload), room)]
    return frames(channel, method, head, *parts)


def deliver(channel: int, tag: int, payload: bytes, *, room: int = 131064, **properties: Any) -> bytes:
    """Return a delivery to the consumer `c` of what was sent to `e` with the key `k`."""
    return content(channel, commands.Basic.Deliver("c", tag, False, "e", "k"), payload, room=room, **properties)


def returned(channel: int, payload: bytes, **properties: Any) -> bytes:
    """Return a message that no queue took."""
    return content(channel, commands.Basic.Return(312, "NO_ROUTE", "e", "k"), payload, **properties)


def sent(connection: Connection) -> list[Any]:
    """Return (channel, frame) of whatever the connection sends, as pamqp reads it."""
    data = connection.data_to_send()
    values: list[Any] = []
    while data:
        size, channel, value = frame.unmarshal(data)
        values.append((channel, value))
        data = data[size:]
    return values


def names(connection: Connection) -> list[str]:
    """Return the names of the frames that the connection sends."""
    return [value.name for _, value in sent(connection)]


def open_connection(settings: Settings = SETTINGS, *, tune: Frame = TUNE) -> Connection:
    """Return a connection that is open and has sent everything."""
    connection = Connection(settings)
    connection.start()
    events = [
        *connection.receive(frames(0, START)),
        *connection.receive(frames(0, tune)),
        *connection.receive(frames(0, commands.Connection.OpenOk())),
    ]
    assert [type(event) for event in events] == [Opened]
    connection.data_to_send()
    return connection


def open_channel(connection: Connection) -> Channel:
    """Return an open channel of an open connection that has sent everything."""
    channel = connection.open_channel()
    assert connection.receive(frames(channel.number, commands.Channel.OpenOk())) == [ChannelOpened(channel.number)]
    connection.data_to_send()
    return channel


def confirming(connection: Connection) -> Channel:
    """Return an open channel in confirm mode."""
    channel = open_channel(connection)
    channel.call(commands.Confirm.Select())
    connection.receive(frames(channel.number, commands.Confirm.SelectOk()))
    connection.data_to_send()
    return channel


def kinds(events: list[Event]) -> list[type]:
    """Return the classes of events."""
    return [type(event) for event in events]


HEARTBEAT = frames(0, heartbeat.Heartbeat())
