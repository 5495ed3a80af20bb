"""Who takes much of what its client sent: few connections in a turn of the loop, and each of them for a moment.

A client chooses what its bytes cost: 8 KiB of frames may be one body, or two hundred requests and their resets, which are
20 ms of work. However many send so, those who send little wait for few of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, final

from trio.lowlevel import ParkingLot, checkpoint

PLACES: Final = 1
"""Connections that take what costs much in one turn of the loop."""
MUCH: Final = 0.001
"""Seconds of work that are much."""
SECONDS: Final = 0.002
"""That each of them takes, but for its last piece."""
TURN_BYTES: Final = 8 * 1024
"""Bytes that each of them takes, however little they cost."""
PIECE_BYTES: Final = 1024
"""Bytes of a piece, after which it looks what the last one has cost."""
_CHEAP: Final = 0.0003
"""Seconds of a piece after which the rest of the turn is one."""


@final
class Turns:
    """The places of those who take what costs much; what costs little holds none."""

    __slots__ = ("_lot", "_taken")

    def __init__(self) -> None:
        self._taken = 0
        self._lot = ParkingLot()

    async def take(  # noqa: ASYNC910  one of both, either way
        self, pieces: Pieces, feed: Callable[[bytes], object]
    ) -> None:
        """Wait for a place and have some taken; who cost much keeps its place until all others had their turn.

        Cancellation: Is a checkpoint.
        """
        while self._taken >= PLACES:
            await self._lot.park()
        self._taken += 1
        is_much = False
        try:
            is_much = pieces.feed(feed) >= MUCH
            if is_much:
                await checkpoint()
        finally:
            self._taken -= 1
            self._lot.unpark(count=1 if is_much else len(self._lot))  # those who cost little need not queue
        if not is_much:
            await checkpoint()


@final
class Pieces:
    """What a client sent, to be taken over several turns."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether there is more."""
        return self._at < len(self._data)

    def feed(self, take: Callable[[bytes], object]) -> float:
        """Have as much of it taken as is one turn's; return the seconds that it took."""
        end, size = min(self._at + TURN_BYTES, len(self._data)), PIECE_BYTES
        began = now = time.perf_counter()
        while self._at < end and now < began + SECONDS:
            piece = self._data[self._at : min(self._at + size, end)]
            take(piece)
            self._at += len(piece)
            before, now = now, time.perf_counter()
            size = TURN_BYTES if now - before < _CHEAP else PIECE_BYTES
        return now - began
