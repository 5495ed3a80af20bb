"""How long something that is run once may go on after it was told to end, whatever it does: for the watchdog to see.

Signals and threads use it while the event loop may be blocked, so it takes no locks: each field has one writer.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Mapping
from typing import Final, final

import attrs

AT_ONCE: Final = 0.3
"""Seconds between two signals that come of one Ctrl-C, at most; nobody presses it twice in that time on purpose."""
OF_SIGNALS: Final[Mapping[str, int]] = {"SIGINT": 130, "SIGTERM": 143}
"""What tells a process to end -> its exit status, as shells have it."""


@final
@attrs.frozen
class End:
    """When a process has to end."""

    at: float
    """In `time.monotonic()`."""
    status: int
    text: str
    """Why."""


@final
@attrs.define(eq=False, repr=False)
class Leash:
    """Bounds what is run once: by its deadline, and by the first signal that comes before it has ended."""

    seconds: float
    """How long it has after it was told to end."""
    overran: int
    """The exit status of what does not end after its deadline."""
    told_by: str = attrs.field(default="", init=False)
    """Name of the signal that came first, before it ended and in time; empty if none has."""
    _deadline: float = attrs.field(default=math.inf, init=False)
    _told_at: float = attrs.field(default=math.inf, init=False)
    _told_again_at: float = attrs.field(default=math.inf, init=False)
    _runs: bool = attrs.field(default=False, init=False)
    _is_over: bool = attrs.field(default=False, init=False)

    def begin(self, deadline: float) -> None:
        """Note that it runs now, and for how many seconds it may."""
        self._deadline, self._runs = time.monotonic() + deadline, True

    def end(self) -> None:
        """Note that it has ended."""
        self._runs, self._is_over = False, True

    def tell(self, number: int) -> None:
        """Note a signal. Safe in a signal handler."""
        now = time.monotonic()
        if not self.told_by and not self._is_over and now < self._deadline:
            self.told_by = signal.Signals(number).name
        if now - self._told_at >= AT_ONCE:
            self._told_again_at = min(now, self._told_again_at)
        self._told_at = min(now, self._told_at)

    @property
    def status(self) -> int:
        """The exit status for the signal that came first; 0 if none has."""
        return OF_SIGNALS.get(self.told_by, 0)

    @property
    def limit(self) -> End | None:
        """When the process has to end because it has not ended itself by then; None while nobody has told it to."""
        if not self._runs or min(self._deadline, self._told_at) == math.inf:
            return None
        reason = self.told_by or "its deadline"
        at, text = min(self._deadline, self._told_at) + self.seconds, f"{self.seconds:g} s after {reason} are over"
        if self._told_again_at < at:
            at, text = self._told_again_at, "a second signal came"
        return End(at, self.status or self.overran, text)
