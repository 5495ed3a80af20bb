"""How many frames a client may send that bring nothing: answering each costs as much as a small request."""

from __future__ import annotations

from typing import Final, final

import attrs
import trio

BURST: Final = 1000
"""Frames at once."""
PER_SECOND: Final = 100
PER_BODY: Final = 2
"""Frames that may follow a piece of body: updates of two windows."""
BODY_BYTES: Final = 2048
"""Bytes of body that allow one frame more."""


@final
@attrs.define(eq=False, repr=False)
class Allowance:
    """A bucket of frames that time and answers fill again."""

    _left: float = BURST
    _since: float = attrs.field(factory=trio.current_time)

    def earn(self, sent: int) -> None:
        """Allow what a client does that takes `sent` bytes of body."""
        self._left = min(BURST, self._left + PER_BODY + sent // BODY_BYTES)

    def spend(self, frames: int) -> bool:
        """Take frames out; returns whether there were as many."""
        now = trio.current_time()
        self._left = min(BURST, self._left + (now - self._since) * PER_SECOND) - frames
        self._since = now
        return self._left >= 0
