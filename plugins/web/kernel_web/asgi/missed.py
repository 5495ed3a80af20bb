"""Says that lines of the access log are lost: when it begins, and how many were when it goes on, or at the end."""

from __future__ import annotations

from math import inf
from typing import Final, final

import attrs
import trio

from kernel.abc import Context

from .events import LinesMissed

CALM: Final = 5.0
"""Seconds without a loss after which it goes on: who is too slow by a little must not fill the log of the service."""


@final
@attrs.define(eq=False, repr=False)
class Missed:
    """Lines that are missing in an access log. Of the event loop alone."""

    _context: Context
    _file: str
    """What it is called."""
    total: int = attrs.field(default=0, init=False)
    _lines: int = attrs.field(default=0, init=False)
    """Since it began; 0 while none are lost."""
    _untold: int = attrs.field(default=0, init=False)
    """Those that no event has told of."""
    _reason: str = attrs.field(default="", init=False)
    _calm_at: float = attrs.field(default=inf, init=False)
    """From when on it goes on; infinite until something was written again."""

    def add(self, lines: int, reason: str) -> None:
        """Take note that lines are lost."""
        is_new = not self._lines
        self.total += lines
        self._lines += lines
        self._untold += lines
        self._reason, self._calm_at = reason, inf
        if is_new:
            self._context.log.warning("lines of the access log are lost", file=self._file, reason=reason)
            self._emit()

    def look(self, *, was_written: bool) -> None:
        """Say that it goes on, if it does: called every few moments.

        Args:
            was_written: Whether lines were, just now, and none were lost by that.
        """
        if not self._lines:
            return
        now = trio.current_time()
        if was_written:
            self._calm_at = min(self._calm_at, now + CALM)
        if now >= self._calm_at:
            self._tell("the access log goes on")

    def end(self) -> None:
        """Say how many were lost, unless that has been said."""
        if self._lines:
            self._tell("the access log has ended, and lines of it are lost")

    def _tell(self, what: str) -> None:
        self._context.log.warning(what, file=self._file, missed=self._lines)
        self._emit()
        self._lines, self._calm_at = 0, inf

    def _emit(self) -> None:
        if self._untold:
            context = self._context
            context.emit(LinesMissed(component=context.id, lines=self._untold, reason=self._reason))
            self._untold = 0
