"""Who takes much of what its client sent: few connections in a turn of the loop, and each of them for a moment.

A client chooses what its bytes cost: 8 KiB of frames may be one body, or two hundred requests and their resets, which are
20 ms of work. However many send so, those who send little wait for few of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, final

from trio import Semaphore
from trio.lowlevel import checkpoint

PLACES: Final = 2
"""Connections that take much in one turn of the loop."""
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
    """A place among those who take much: wait for it, take some, and leave it once all others had their turn."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places = Semaphore(PLACES)

    async def __aenter__(self) -> None:
        await self._places.acquire()

    async def __aexit__(self, *_: object) -> None:
        try:
            await checkpoint()
        finally:
            self._places.release()


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

    def feed(self, take: Callable[[bytes], object]) -> None:
        """Have as much of it taken as is one turn's."""
        end, size = min(self._at + TURN_BYTES, len(self._data)), PIECE_BYTES
        began = now = time.perf_counter()
        while self._at < end and now < began + SECONDS:
            piece = self._data[self._at : min(self._at + size, end)]
            take(piece)
            self._at += len(piece)
            before, now = now, time.perf_counter()
            size = TURN_BYTES if now - before < _CHEAP else PIECE_BYTES
