"""What the driver reports besides the logs of the kernel."""

from __future__ import annotations

from typing import final

import attrs

from kernel import Event


@final
@attrs.frozen(kw_only=True)
class HttpRequestDone(Event):
    """A request ended, all its attempts included. The path is left out: it is of any number, and may be secret."""

    method: str
    host: str
    status: int
    """Of the last answer; 0 if there was none."""
    attempts: int
    seconds: float
    """Until the head of the last answer was there."""
