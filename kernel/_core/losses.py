"""What a component sends off in a thread and cannot, counted and told; public through `kernel.abc`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

import attrs

from .context import Context

if TYPE_CHECKING:
    import trio

    from .event import Event

PERIOD: Final = 60.0
"""Seconds from one time that losses begin to be told to the next."""


@final
@attrs.define(eq=False, repr=False)
class Losses:
    """Counts what is taken and what becomes of it, in any thread, and tells what is lost in the event loop.

    The log has a line when losses begin, though not more than one in `PERIOD`, and one when something was sent again;
    each says how many were lost that no line has said yet, and so does a last one. Events tell of them all.
    Made in the event loop.
    """

    _context: Context
    _what: str
    """The things, as in `spans`: the log says `spans_lost` and `spans_sent_again`."""
    _event: Callable[[int, str], Event]
    """What is emitted, of how many and why."""
    _token: trio.lowlevel.TrioToken = attrs.field(init=False)
    _lock: threading.RLock = attrs.field(factory=threading.RLock, init=False)
    _waiting: int = attrs.field(default=0, init=False)
    """Taken, and neither sent nor lost."""
    _lost: int = attrs.field(default=0, init=False)
    """Of which no event has told."""
    _unsaid: int = attrs.field(default=0, init=False)
    """Of which no line has told."""
    _reason: str = attrs.field(default="", init=False)
    """Why the last were lost."""
    _is_well: bool = attrs.field(default=True, init=False)
    """Whether the last ones were sent."""
    _said_at: float = attrs.field(default=-PERIOD, init=False)
    _is_said: bool = attrs.field(default=False, init=False)
    """Whether the log's last word is that some are lost."""
    _is_over: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        import trio  # noqa: PLC0415  who plans needs none

        self._token = trio.lowlevel.current_trio_token()
        self._said_at += trio.current_time()

    @property
    def is_over(self) -> bool:
        """Whether it has been finished: what is left has been told to be lost, and is not to be sent any more."""
        return self._is_over

    def take(self, count: int = 1) -> None:
        """Count what is to be sent."""
        with self._lock:
            self._waiting += count

    def sent(self, count: int = 1) -> None:
        """Count what has arrived."""
        with self._lock:
            self._waiting -= count
            self._is_well = True
            if self._is_said or self._unsaid:
                self._wake()

    def lose(self, count: int, reason: str) -> None:
        """Count what will not be sent, and why."""
        with self._lock:
            if self._is_over:
                return
            self._note(count, reason)
            self._is_well = False
            self._wake()

    def finish(self, reason: str) -> bool:
        """Tell of what has not been told yet, and that what waits is lost, for this reason; nothing is told after it.

        Called in the event loop.

        Returns:
            Whether nothing waits.
        """
        with self._lock:
            is_empty = not self._waiting
            if self._waiting:
                self._note(self._waiting, reason)
            self._is_over = True
            self._emit()
            if self._unsaid:
                self._warn()
            return is_empty

    def _note(self, count: int, reason: str) -> None:
        self._waiting -= count
        self._lost += count
        self._unsaid += count
        self._reason = self._context.mask(reason)

    def _wake(self) -> None:
        import trio  # noqa: PLC0415  as above

        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._tell, idempotent=True)

    def _tell(self) -> None:
        import trio  # noqa: PLC0415  as above

        with self._lock:
            if self._is_over:
                return
            self._emit()
            now = trio.current_time()
            if self._unsaid and not self._is_said and now - self._said_at >= PERIOD:
                self._said_at, self._is_said = now, True
                self._warn()
            if self._is_said and self._is_well:
                self._is_said = False
                again = f"{self._what}_sent_again"
                self._context.log.info(again, lost=self._unsaid)
                self._unsaid = 0

    def _emit(self) -> None:
        if self._lost:
            self._context.emit(self._event(self._lost, self._reason))
            self._lost = 0

    def _warn(self) -> None:
        lost = f"{self._what}_lost"
        self._context.log.warning(lost, count=self._unsaid, reason=self._reason)
        self._unsaid = 0
