"""How one direction of a proxy treats what it carries: the value that a test sets, and the place where it is looked up."""

from __future__ import annotations

from typing import final

import attrs
import trio
from attrs.validators import ge, gt, optional


@final
@attrs.frozen(kw_only=True)
class LineFaults:
    """What goes wrong in one direction of a proxy; without arguments nothing does."""

    latency: float = attrs.field(default=0.0, validator=ge(0))
    """Seconds that every piece is under way. Order is kept."""
    jitter: float = attrs.field(default=0.0, validator=ge(0))
    """Up to so many seconds more, chosen for each piece from the proxy's seed. Order is kept."""
    bandwidth: float | None = attrs.field(default=None, validator=optional(gt(0)))
    """Bytes a second, for each connection; None: as fast as it goes."""
    slice_bytes: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """At most so many bytes are written at a time; 1 sends single bytes. None: as they come."""
    black_hole: bool = False
    """Nothing passes, not even that one side has closed; it waits, and passes when this is over, as TCP would have it."""
    cut_after: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """A connection is closed, both ways, when so many bytes have passed in this direction."""
    corrupt_at: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """Every bit of the byte with this number is flipped in each connection; 0 is the first."""
    close_delay: float = attrs.field(default=0.0, validator=ge(0))
    """Seconds after which one side learns that the other has closed."""

    @property
    def part_bytes(self) -> int:
        """How much may be written at a time: less on a slow line, so that its bytes come evenly."""
        parts = [_LARGEST]
        if self.slice_bytes is not None:
            parts.append(self.slice_bytes)
        if self.bandwidth is not None:
            parts.append(max(1, int(self.bandwidth * _EVENLY)))
        return min(parts)


_LARGEST = 65536
_EVENLY = 0.02
"""Seconds that one write takes on a slow line."""


@final
@attrs.define(eq=False, repr=False)
class Line:
    """One direction of a proxy, for all of its connections."""

    _faults: LineFaults = attrs.field(factory=LineFaults, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def faults(self) -> LineFaults:
        """What goes wrong at the moment; setting it takes effect at once, also for open connections."""
        return self._faults

    @faults.setter
    def faults(self, faults: LineFaults) -> None:
        self._faults = faults
        self._changed.set()
        self._changed = trio.Event()

    async def wait_passing(self) -> None:
        """Wait until the line is no black hole.

        Cancellation: Is a checkpoint.
        """
        await trio.lowlevel.checkpoint()
        while self._faults.black_hole:
            await self._changed.wait()
