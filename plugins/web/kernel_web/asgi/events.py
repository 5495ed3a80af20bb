"""What a dispatcher tells besides the kernel's own events."""

from __future__ import annotations

from typing import final

import attrs

from kernel import CountsAsked as CountsAsked
from kernel import Event
from kernel import RequestBegan as RequestBegan
from kernel import RequestCounted as RequestCounted
from kernel import RequestDone as RequestDone
from kernel import RequestFailed as RequestFailed
from kernel import RequestsDone as RequestsDone


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class SlotsTaken(Event):
    """Every slot of the dispatcher is taken, so that requests wait. Told once, until they no longer have to."""

    slots: int
    """How many there are: `concurrency`."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class ThreadsTaken(Event):
    """Every thread for functions that block is taken, so that sync endpoints wait. Told once, until some are free."""

    threads: int
    """How many there are, for all components of the process: the tokens of trio's default limiter."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class LinesMissed(Event):
    """Lines of the access log are lost. Told when that begins, and again when it is over, or at the stop."""

    lines: int
    """How many, of which no other has told."""
    reason: str
    """Why the last of them are."""
