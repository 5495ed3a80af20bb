"""How many frames a client may send that bring nothing: answering each costs as much as a small request."""

from __future__ import annotations

from typing import Final, final

import attrs
import h2.events
import trio

from .protocol import brings_nothing

BURST: Final = 1000
"""Frames at once."""
RESETS: Final = 200
"""Requests cancelled at once: each costs as much as one that is answered."""
PER_SECOND: Final = 100
PER_BODY: Final = 2
"""Frames that may follow a piece of body: updates of two windows."""
BODY_BYTES: Final = 2048
"""Bytes of body that allow one frame more."""


@final
@attrs.define(eq=False, repr=False)
class Allowance:
    """What a client may send that brings nothing, and how much it may cancel."""

    _frames: _Bucket = attrs.field(factory=lambda: _Bucket(BURST))
    _resets: _Bucket = attrs.field(factory=lambda: _Bucket(RESETS))

    def earn(self, sent: int) -> None:
        """Allow what a client does that takes `sent` bytes of body."""
        self._frames.add(PER_BODY + sent // BODY_BYTES)

    def spend(self, events: list[h2.events.Event]) -> bool:
        """Take out what has come; returns whether it was allowed."""
        frames = sum(map(brings_nothing, events))
        resets = sum(isinstance(event, h2.events.StreamReset) for event in events) if frames else 0
        return not frames or (self._frames.take(frames) and self._resets.take(resets))


@final
@attrs.define(eq=False, repr=False)
class _Bucket:
    """So many at once, and `PER_SECOND`."""

    _size: float
    _left: float = attrs.field(init=False)
    _since: float = attrs.field(factory=trio.current_time)

    def __attrs_post_init__(self) -> None:
        self._left = self._size

    def add(self, number: int) -> None:
        self._left = min(self._size, self._left + number)

    def take(self, number: int) -> bool:
        """Take so many out; returns whether there were as many."""
        now = trio.current_time()
        self._left = min(self._size, self._left + (now - self._since) * PER_SECOND) - number
        self._since = now
        return self._left >= 0
