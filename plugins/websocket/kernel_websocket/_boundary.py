"""Where a connection ends: a stream that no peer can hold up, and the wall that no error of one connection passes."""

from __future__ import annotations

import math
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final, Literal, TypeAlias, cast, final

import trio
from trio_websocket import ConnectionClosed, Endpoint, HandshakeError, WebSocketConnection
from typing_extensions import override
from wsproto.utilities import ProtocolError

from kernel.abc import Context

from ._fragments import MOST, Fragments

RawStream: TypeAlias = "trio.SocketStream | trio.SSLStream[trio.SocketStream]"
OF_THE_PEER: Final = (
    ConnectionClosed,
    HandshakeError,
    OSError,
    ProtocolError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
)
"""What a peer, or what is between it and us, can bring about."""
_CLOSE: Final = 0x88
"""First byte of a frame that closes. Source: RFC 6455, 5.2."""
_NOT_TO_BE_SENT: Final = (1005, 1006)
"""Close codes that only say how it ended here. Source: RFC 6455, 7.4.1."""
_KEEPALIVE: Final = [
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
]
"""Seconds of quiet until the system asks, and between questions; how many are not answered."""
_GOODBYE: Final = 0.5
"""Seconds for the last frame of a connection to arrive."""


@final
class BoundedStream(trio.abc.Stream):
    """A stream of one websocket. What cannot be sent in time breaks it, whoever sends: our messages, or pongs.

    Closing it ends what is under way but leaves the socket open, so that `part` can say why; `part` closes that.
    """

    def __init__(self, stream: RawStream, *, send_timeout: float) -> None:
        self._stream: Final = stream
        self._send_timeout: Final = send_timeout
        self._under_way: Final = set[trio.CancelScope]()
        self._is_closed = False
        self._fragments: Final = Fragments()
        _watch(stream)
        self._is_whole = True
        """Whether everything that was begun has been sent to its end."""
        self._has_closed = False
        """Whether a frame that closes was sent."""
        self._shaking: trio.CancelScope | None = None
        self.socket: WebSocketConnection | None = None
        """Set when the handshake is done."""

    def give_up(self) -> None:
        """End its handshake, if that is under way."""
        if self._shaking is not None:
            self._shaking.cancel()

    @property
    def local(self) -> Endpoint:
        """The address that the peer has connected to."""
        return _endpoint(self._stream, "getsockname")

    @property
    def remote(self) -> Endpoint:
        """The address of the peer; `OSError` if it has left."""
        return _endpoint(self._stream, "getpeername")

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._bounded(self._send_timeout):
            is_whole, self._is_whole = self._is_whole, False
            await self._stream.send_all(data)
            self._is_whole = is_whole
            self._has_closed |= data[:1] == bytes([_CLOSE])

    @override
    async def wait_send_all_might_not_block(self) -> None:
        with self._bounded(self._send_timeout):
            await self._stream.wait_send_all_might_not_block()

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        with self._bounded(math.inf):
            data = await self._stream.receive_some(max_bytes)
            if not data:
                self.give_up()
            self._fragments.feed(data)
            if self._fragments.count > MOST:
                raise trio.BrokenResourceError("a message in too many frames")
            return data
        raise AssertionError  # `_bounded` has raised

    @override
    async def aclose(self) -> None:
        self._is_closed = True
        for scope in self._under_way:
            scope.cancel()
        await trio.lowlevel.checkpoint()

    @contextmanager
    def shaking_hands(self, *, seconds: float) -> Generator[None]:
        """Give the handshake in the block its time; it ends sooner if the peer leaves, or says what means nothing.

        Raises:
            HandshakeError: if there was none.
        """
        with trio.move_on_after(seconds) as scope:
            self._shaking = scope
            self._under_way.add(scope)
            try:
                yield
            finally:
                self._under_way.discard(scope)
                self._shaking = None
        if scope.cancelled_caught:
            raise HandshakeError("there was no handshake")

    async def part(self) -> None:  # noqa: ASYNC910  closing is a checkpoint
        """Say why it ends if nobody has, let that arrive, and close the socket.

        Cancellation: Is a checkpoint. If cancelled, the socket is closed at once.
        """
        try:
            with trio.move_on_after(_GOODBYE), suppress(*OF_THE_PEER):
                if self._is_whole:
                    await self._say_goodbye()
        finally:
            await trio.aclose_forcefully(self._stream)  # noqa: ASYNC102  it does not wait
        await trio.lowlevel.checkpoint()

    async def _say_goodbye(self) -> None:
        await trio.lowlevel.checkpoint()
        reason = self.socket.closed if self.socket is not None else None
        if not self._has_closed and reason is not None and reason.code not in _NOT_TO_BE_SENT:
            is_masked = self.socket is not None and self.socket.is_client
            await self._stream.send_all(_close_frame(reason.code, is_masked=is_masked))
        if isinstance(self._stream, trio.SocketStream):
            await self._stream.send_eof()
            while await self._stream.receive_some():  # what is unread makes a reset of the end, and loses what we said
                pass

    @contextmanager
    def _bounded(self, seconds: float) -> Generator[None]:
        if self._is_closed:
            raise trio.ClosedResourceError("the connection has ended")
        with trio.move_on_after(seconds) as scope:
            self._under_way.add(scope)
            try:
                yield
            finally:
                self._under_way.discard(scope)
        if scope.cancelled_caught:
            self._is_closed = True
            for other in self._under_way:
                other.cancel()
            raise trio.BrokenResourceError("the connection was closed, or the peer does not read")


def _watch(stream: RawStream) -> None:
    """Have the system notice a peer that has vanished without a word: with nothing to say nobody else would."""
    sock = _socket_of(stream)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _socket_of(stream: RawStream) -> trio.socket.SocketType:
    return (stream.transport_stream if isinstance(stream, trio.SSLStream) else stream).socket


def _endpoint(stream: RawStream, which: Literal["getsockname", "getpeername"]) -> Endpoint:
    is_safe = isinstance(stream, trio.SSLStream)
    address, port, *_ = getattr(_socket_of(stream), which)()
    return Endpoint(address, port, is_safe)


def _close_frame(code: int, *, is_masked: bool) -> bytes:
    payload = code.to_bytes(2, "big")
    return bytes([_CLOSE, 0x80 | len(payload), 0, 0, 0, 0]) + payload if is_masked else bytes([_CLOSE, 2]) + payload


@contextmanager
def contained(context: Context) -> Generator[None]:
    """Let no error of one connection out, whoever raised it: only cancellation passes.

    What a peer can bring about is no news; anything else is a defect of ours, and is logged as one.
    """
    try:
        yield
    except* OF_THE_PEER as group:
        context.log.debug("connection_failed", error=repr(reason_in(group)))
    except* Exception:
        context.log.exception("connection_failed")


def reason_in(error: BaseException) -> BaseException:
    """Return the first error in a group, or what is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
