"""Carries one direction of one connection of a proxy, with the faults of its line. Knows streams, and no sockets."""

from __future__ import annotations

import enum
import random
from typing import final

import attrs
import trio

from ._proxy_line import Line, LineFaults

_UNDER_WAY = 64
"""Pieces between reading and writing; when so many are under way, nothing more is read."""
_PIECE = 16384
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


@final
class Ending(enum.Enum):
    """Why a pipe carries nothing more."""

    ENDED = "its source has closed, and its target was told"
    SOURCE_GONE = "its source was reset"
    TARGET_GONE = "its target takes nothing more"
    CUT = "its line cuts after so many bytes"


@final
@attrs.frozen(eq=False, repr=False)
class _Piece:
    due: float
    data: bytes | None
    """Empty at the end of the stream, None if it was reset."""


@final
@attrs.define(eq=False, repr=False)
class Pipe:
    """One direction of one connection."""

    source: trio.abc.ReceiveStream
    target: trio.abc.HalfCloseableStream
    line: Line
    chance: random.Random
    _due: float = attrs.field(default=0.0, init=False)
    _faults: LineFaults | None = attrs.field(default=None, init=False)
    _passed: int = attrs.field(default=0, init=False)

    async def run(self) -> Ending:
        """Carry what comes until nothing more can come or go; returns why.

        Ordering: Bytes stay in order, and the end of the stream comes after them.

        Cancellation: Is a checkpoint. If cancelled, what is under way is dropped.
        """
        pieces_in, pieces_out = trio.open_memory_channel[_Piece](_UNDER_WAY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take, pieces_in)
            ending = await self._pass_on(pieces_out)
            nursery.cancel_scope.cancel()
        return ending

    async def _take(self, pieces: trio.MemorySendChannel[_Piece]) -> None:
        while True:
            await self.line.wait_passing()
            data = await self._receive()
            await pieces.send(_Piece(self._next_due(), data))
            if not data:
                return

    async def _receive(self) -> bytes | None:
        try:
            return bytes(await self.source.receive_some(_PIECE))
        except _GONE:
            return None  # noqa: ASYNC910  of a call that is a checkpoint

    def _next_due(self) -> float:
        faults = self.line.faults
        due = trio.current_time() + faults.latency + self.chance.uniform(0, faults.jitter)
        self._due = max(self._due, due)
        return self._due

    async def _pass_on(self, pieces: trio.MemoryReceiveChannel[_Piece]) -> Ending:
        while True:
            piece = await pieces.receive()
            await trio.sleep_until(piece.due)
            if piece.data is None:
                await self.line.wait_passing()
                return Ending.SOURCE_GONE
            ending = await (self._send(piece.data) if piece.data else self._end())
            if ending is not None:
                return ending

    async def _end(self) -> Ending:
        await trio.sleep(self.line.faults.close_delay)
        await self.line.wait_passing()
        try:
            await self.target.send_eof()
        except _GONE:
            return Ending.TARGET_GONE
        return Ending.ENDED

    async def _send(self, data: bytes) -> Ending | None:
        at = 0
        while at < len(data):
            await self.line.wait_passing()
            faults = self._look_up()
            part = self._afflicted(data[at : at + faults.part_bytes], faults)
            try:
                await self.target.send_all(part)
            except _GONE:
                return Ending.TARGET_GONE
            at += len(part)
            self._passed += len(part)
            if self._passed == faults.cut_after:
                return Ending.CUT
            if faults.bandwidth is not None:
                await trio.sleep(len(part) / faults.bandwidth)
        return None  # noqa: ASYNC910  there is something to send

    def _look_up(self) -> LineFaults:
        """Return what goes wrong; bytes are counted from when it was set."""
        faults = self.line.faults
        if faults is not self._faults:
            self._faults = faults
            self._passed = 0
        return faults

    def _afflicted(self, part: bytes, faults: LineFaults) -> bytes:
        if faults.cut_after is not None:
            part = part[: faults.cut_after - self._passed]
        at = -1 if faults.corrupt_at is None else faults.corrupt_at - self._passed
        if 0 <= at < len(part):
            return part[:at] + bytes([part[at] ^ 0xFF]) + part[at + 1 :]
        return part
