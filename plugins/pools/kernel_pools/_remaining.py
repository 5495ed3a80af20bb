"""How much time a plain handler has left."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from typing import Final

UNTIL: Final[ContextVar[float]] = ContextVar("UNTIL", default=math.inf)
"""In `time.monotonic()`, which processes of one machine share."""


def remaining() -> float:
    """Return the seconds until nobody wants the result of this call any more; infinite if nobody ever stops.

    For the timeouts of what a handler waits for. May be called in any thread, or process, in which a pool calls.
    """
    return UNTIL.get() - time.monotonic()
