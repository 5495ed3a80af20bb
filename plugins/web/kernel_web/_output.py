"""The sending side of a connection: a buffer that one task empties, with a deadline on every piece.

An application that is cancelled while it sends therefore never leaves half a frame behind, and the head and body of a
small answer leave in one packet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, final

import attrs
import trio

PIECE: Final = 64 * 1024
"""Bytes that must be taken within one `write_timeout`."""
HIGH_WATER: Final = 64 * 1024
"""Bytes in the buffer above which writers wait."""
LINGER: Final = 1.0
"""Seconds in which a client that is still sending may read its answer before the connection is closed."""
BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


@final
@attrs.define(eq=False, repr=False)
class Output:
    """What a client has yet to take."""

    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
    _write_timeout: float
    _on_broken: Callable[[], None]
    """Called when the client takes nothing any more; calls `drop`."""
    buffered: int = attrs.field(default=0, init=False)
    """Bytes that are not sent yet."""
    broken: bool = attrs.field(default=False, init=False)
    """Nothing can be sent any more."""
    _closing: bool = attrs.field(default=False, init=False)
    _buffer: deque[bytes] = attrs.field(factory=deque[bytes], init=False)
    _more: trio.Event = attrs.field(factory=trio.Event, init=False)
    _room: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def write(self, data: bytes) -> None:  # noqa: ASYNC910  hypercorn's callback: a turn here would part head and body
        """Put bytes into the buffer; waits only while it is full.

        Cancellation: The bytes are in the buffer whatever happens.
        """
        if self.broken or self._closing or not data:
            return  # noqa: ASYNC910  as above
        self._buffer.append(data)
        self.buffered += len(data)
        self._more.set()
        while self.buffered > HIGH_WATER and not self.broken:
            await self._room.wait()

    def close(self) -> None:
        """Take no more; `pump` ends when the buffer is empty. May be called again."""
        self._closing = True
        self._more.set()

    def drop(self) -> None:
        """Forget what is in the buffer, and let nobody wait for room. May be called again."""
        self.broken = True
        self._buffer.clear()
        self.buffered = 0
        self._more.set()
        self._room.set()

    async def pump(self) -> None:
        """Send what is put into the buffer until it is closed and empty, or broken.

        Cancellation: Is a checkpoint. The rest of a piece is lost: whoever cancels closes the connection.
        """
        await trio.lowlevel.checkpoint()
        while not self.broken:
            if self._buffer:
                await self._send_all()
            elif self._closing:
                return
            else:
                self._more = trio.Event()
                await self._more.wait()

    async def shut(self, *, lingers: bool) -> None:
        """Close the sending side; bounded.

        Args:
            lingers: Whether the client may still be sending: what is not read by then would reset the connection.
        """
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(LINGER), suppress(*BROKEN):
            if isinstance(self.stream, trio.SocketStream):
                await self.stream.send_eof()
            elif not lingers:
                await self.stream.aclose()

    async def _send_all(self) -> None:  # noqa: ASYNC910  there is a piece at least
        data = self._buffer.popleft() if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        with memoryview(data) as view:
            for at in range(0, len(view), PIECE):
                await self._send_piece(view[at : at + PIECE])
                if self.broken:
                    return
        self.buffered -= len(data)
        self._room.set()
        self._room = trio.Event()

    async def _send_piece(self, piece: memoryview) -> None:  # noqa: ASYNC910  sending is a checkpoint
        with trio.move_on_after(self._write_timeout) as scope:
            try:
                await self.stream.send_all(piece)
            except BROKEN:
                self._on_broken()
        if scope.cancelled_caught:
            self._on_broken()
