"""A websocket over a connection of HTTP/1.1, which ends with it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import final

from typing_extensions import override

from .._application import ASGIMessage
from ..asgi.fields import FIELDS
from ..asgi.own import size_of
from ..websocket.carrier import Carrier
from ..websocket.handshake import accept_key, refusal
from ..wire.channel import Channel
from ..wire.clock import Clock
from .framing import Framing, own_answer
from .head import Head


@final
class Upgraded(Carrier):
    """The channel of a connection, from the handshake on."""

    __slots__ = ("_accept", "_channel", "_clock", "_framing", "_opening")

    def __init__(self, channel: Channel, clock: Clock, accept: bytes, opening: bytes) -> None:
        self._channel = channel
        self._clock = clock
        self._accept = accept
        self._opening = opening
        self._framing = Framing("GET", "1.1")
        self._framing.last = True

    @property
    @override
    def sent(self) -> int:
        return self._framing.sent

    @property
    @override
    def is_reading(self) -> bool:
        return self._channel.reading

    @override
    def read(self) -> Coroutine[object, object, bytes | None]:
        return self._read_opening() if self._opening else self._channel.read()

    async def _read_opening(self) -> bytes:
        opening, self._opening = self._opening, b""
        return opening  # noqa: ASYNC910  it is here

    @override
    async def accept(self, headers: list[tuple[bytes, bytes]]) -> None:
        lines = b"".join(b"%b: %b\r\n" % field for field in headers)
        if FIELDS.fullmatch(lines) is None:
            raise RuntimeError("a header of the answer is not allowed")
        head = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        await self._channel.write(head + b"sec-websocket-accept: %b\r\n" % self._accept + lines + b"\r\n")

    @override
    async def respond(self, message: ASGIMessage) -> None:
        if message["type"] == "http.response.start":
            self._framing.start(message)  # type: ignore[arg-type]  # a dict, as ASGI has it
            return  # noqa: ASYNC910  held back
        data, more = message.get("body", b""), message.get("more_body", False)
        await self._channel.write(self._framing.body(data, more=more, common=self._clock.common))

    @override
    def refuse(self, status: int) -> None:
        self._framing.sent = size_of(status)
        self._channel.write_nowait(own_answer(status, self._clock.common, is_last=True))

    @override
    def write(self, data: bytes) -> Coroutine[object, object, None]:
        return self._channel.write(data)

    @override
    def write_nowait(self, data: bytes) -> None:
        self._channel.write_nowait(data)

    @property
    @override
    def is_behind(self) -> bool:
        return self._channel.has_unsent or self._channel.closed

    @override
    def flush(self) -> Coroutine[object, object, None]:
        return self._channel.flush()

    @override
    def wake(self) -> None:
        self._channel.wake()


def wants_websocket(head: Head) -> bool:
    """Return whether a request asks for a websocket; other upgrades are ignored."""
    return head.upgrade == b"websocket" and head.method == "GET"


def handshake(head: Head) -> tuple[int, bytes]:
    """Return the status with which a handshake is refused, 0 if it is not, and the answer to its key."""
    accept = accept_key(head.headers)
    if accept is None or head.length:
        return 400, b""
    return refusal(head.headers), accept
