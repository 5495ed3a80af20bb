"""A broker that does what a test tells it, written on pamqp's frames, over any stream of trio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import trio
from pamqp import body, commands, frame, header, heartbeat
from pamqp.base import Frame

_FrameT = TypeVar("_FrameT")


class Peer:
    """The broker's end of one connection."""

    def __init__(self, stream: Any, *, heartbeat: int = 0, mechanisms: str = "PLAIN EXTERNAL") -> None:
        self.stream = stream
        self.heartbeat = heartbeat
        self.mechanisms = mechanisms
        self.login: commands.Connection.StartOk | None = None
        self.tuned: commands.Connection.TuneOk | None = None
        self._buffer = b""

    async def next(self) -> tuple[int, Any]:
        """Return channel and frame of whatever comes next; raises `EOFError` at the end of the stream."""
        while True:
            size, channel, value = self._parse()
            if size:
                self._buffer = self._buffer[size:]
                return channel, value
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError
            self._buffer += data

    def _parse(self) -> tuple[int, int, Any]:
        if len(self._buffer) < 7:
            return 0, 0, None
        if not self._buffer.startswith(b"AMQP"):
            size = int.from_bytes(self._buffer[3:7], "big") + 8
            if len(self._buffer) < size:
                return 0, 0, None
        elif len(self._buffer) < 8:
            return 0, 0, None
        return frame.unmarshal(self._buffer)

    async def expect(self, kind: type[_FrameT]) -> _FrameT:
        """Return the next frame but heartbeats; fail if it is not of this kind."""
        while True:
            _, value = await self.next()
            if not isinstance(value, heartbeat.Heartbeat) or kind is heartbeat.Heartbeat:
                assert isinstance(value, kind), f"expected {kind}, got {value!r}"
                return value

    async def expect_message(self) -> tuple[commands.Basic.Publish, header.ContentHeader, bytes]:
        """Return the next message; fail if its frames do not follow each other."""
        method = await self.expect(commands.Basic.Publish)
        head = await self.expect(header.ContentHeader)
        data = b""
        while len(data) < head.body_size:
            data += (await self.expect(body.ContentBody)).value
        return method, head, data

    async def send(self, *frames: Any, channel: int = 1) -> None:
        await self.stream.send_all(b"".join(frame.marshal(each, channel) for each in frames))

    async def welcome(self) -> None:
        """Let the client in."""
        await self.expect(header.ProtocolHeader)
        start = commands.Connection.Start(
            server_properties={"product": "peer"}, mechanisms=self.mechanisms, locales="en_US"
        )
        await self.send(start, channel=0)
        self.login = await self.expect(commands.Connection.StartOk)
        await self.send(commands.Connection.Tune(2047, 131072, self.heartbeat), channel=0)
        self.tuned = await self.expect(commands.Connection.TuneOk)
        await self.expect(commands.Connection.Open)
        await self.send(commands.Connection.OpenOk(), channel=0)

    async def open_channel(self, number: int = 1) -> None:
        await self.expect(commands.Channel.Open)
        await self.send(commands.Channel.OpenOk(), channel=number)

    async def select_confirms(self) -> None:
        await self.open_channel()
        await self.expect(commands.Confirm.Select)
        await self.send(commands.Confirm.SelectOk())

    async def deliver(self, tag: int, data: bytes = b"", consumer: str = "c") -> None:
        await self.send(*delivery(tag, data, consumer))

    async def serve(self) -> None:
        """Answer everything as a broker would that keeps nothing, until the client says goodbye or goes away."""
        numbers: dict[int, int] = {}
        try:
            while True:
                channel, value = await self.next()
                if isinstance(value, commands.Basic.Publish):
                    numbers[channel] = numbers.get(channel, 0) + 1
                    await self._take_message(channel, numbers[channel])
                elif isinstance(value, Frame) and value.synchronous:
                    numbers.pop(channel, None) if isinstance(value, commands.Channel.Close) else None
                    await self.respond(channel, value)
        except (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def respond(self, channel: int, method: Frame) -> None:
        """Answer a synchronous method."""
        await self.send(answer(method), channel=channel)

    async def _take_message(self, channel: int, number: int) -> None:
        same, head = await self.next()
        assert (same, type(head)) == (channel, header.ContentHeader), "a message was cut in two"
        size = 0
        while size < head.body_size:
            same, part = await self.next()
            assert (same, type(part)) == (channel, body.ContentBody), "a message was cut in two"
            size += len(part.value)
        await self.send(commands.Basic.Ack(number), channel=channel)


def delivery(tag: int, data: bytes, consumer: str) -> tuple[Any, ...]:
    head = header.ContentHeader(body_size=len(data), properties=commands.Basic.Properties(message_id=str(tag)))
    method = commands.Basic.Deliver(consumer, tag, False, "", "q")
    return (method, head, body.ContentBody(data)) if data else (method, head)


def answer(method: Frame) -> Frame:
    """Return the plain answer to a synchronous method."""
    kind: Callable[..., Frame] = frame.commands.INDEX_MAPPING[_index_of(method.valid_responses[0])]
    match method:
        case commands.Queue.Declare():
            return kind(method.queue, 0, 0)
        case commands.Queue.Delete() | commands.Queue.Purge():
            return kind(0)
        case commands.Basic.Consume() | commands.Basic.Cancel():
            return kind(method.consumer_tag)
        case commands.Channel.Flow():
            return kind(True)
        case _:
            return kind()


def _index_of(name: str) -> int:
    return next(index for index, kind in commands.INDEX_MAPPING.items() if kind.name == name)
