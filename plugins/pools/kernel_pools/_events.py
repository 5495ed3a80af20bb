"""What the pools report."""

from __future__ import annotations

from typing import final

import attrs

from kernel import Event


@final
@attrs.frozen(kw_only=True)
class PlainCallDone(Event):
    """A handler was called in a pool and has ended; `component` is the pool."""

    worker: str
    """`worker/name`."""
    waited: float
    """Seconds until it had a place, and in it a process that was ready."""
    seconds: float
    """Seconds that it took after that."""
    error: str
    """Class of what it raised; `Cancelled` if it was ended; empty if it returned."""
