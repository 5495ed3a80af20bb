"""A websocket over a stream of HTTP/2 (RFC 8441)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

from h2.errors import ErrorCodes
from trio.lowlevel import checkpoint
from typing_extensions import override

from .._application import ASGIMessage
from ..websocket.carrier import Carrier
from ..wire.channel import ClientGoneError
from .lane import Lane
from .protocol import Fields, sendable
from .stream import give


@final
class Tunnel(Carrier):
    """The carrier."""

    __slots__ = ("_common", "_lane", "_out", "_sent")

    def __init__(self, lane: Lane, common: Fields) -> None:
        self._lane = lane
        self._common = common
        self._out = bytearray()
        """What waits for the client's window."""
        self._sent = 0

    @property
    @override
    def sent(self) -> int:
        return self._sent

    @property
    @override
    def is_reading(self) -> bool:
        return self._lane.is_waiting

    @override
    async def read(self) -> bytes | None:
        lane = self._lane
        if not (lane.queued or lane.ended or lane.lost):
            await lane.wait()
        else:
            await checkpoint()
        data = lane.take()
        return data or (b"" if lane.ended or lane.lost else None)

    @override
    async def accept(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._lane.put_fields([(b":status", b"200"), *sendable(headers), *self._common])
        await self._lane.send(b"")

    @override
    async def respond(self, message: ASGIMessage) -> None:
        lane = self._lane
        if message["type"] == "http.response.start":
            fields = sendable(message.get("headers", ()))
            lane.put_fields([(b":status", b"%d" % message["status"]), *fields, *self._common])
            await checkpoint()
            return
        body = message.get("body", b"")
        await lane.send(body, is_last=not message.get("more_body", False))
        self._sent += len(body)

    @override
    def refuse(self, status: int) -> None:
        self._sent = give(self._lane, status, self._common)

    @override
    async def write(self, data: bytes) -> None:
        await self.flush()
        await self._lane.send(data)

    @override
    def write_nowait(self, data: bytes) -> None:
        if self._lane.lost:
            return
        if self._out or not self._lane.put_data(data):
            self._out += data

    @override
    async def flush(self) -> None:  # noqa: ASYNC910  suspends only to wait
        if self._lane.lost:
            await checkpoint()
            raise ClientGoneError("the client is gone")
        if self._out:
            out = bytes(self._out)
            self._out.clear()
            await self._lane.send(out)

    @override
    def wake(self) -> None:
        self._lane.wake()

    async def carry(self, run: Callable[[], Awaitable[None]]) -> None:
        """Run a websocket, and end the stream with it."""
        try:
            await run()
        finally:
            self._finish()

    def _finish(self) -> None:
        lane = self._lane
        if not lane.lost and not lane.put_data(b"", is_last=True):
            lane.reset(ErrorCodes.CANCEL)
