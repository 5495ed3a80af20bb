"""What the relay tells of the messages that wait in the outbox, and of those that the broker does not take."""

from __future__ import annotations

import math
from typing import Final, final

import attrs
import trio

from kernel import Backlog
from kernel.abc import Context

from ._tables import WAITING
from ._transaction import DatabaseTransaction

_SOONEST: Final = 1.0
"""Seconds between two looks at what waits, at least."""
_SHARE: Final = 20.0
"""So many times as long as a look takes there is none: to count many costs the server time."""
_SELDOM: Final = 60.0
"""Seconds between two warnings."""


@final
@attrs.define(eq=False, repr=False)
class OutboxBacklog:
    """Knows what waits in the outbox; has its component degraded while something of it was not taken.

    A change of state is one record of the log; while it lasts, there is a warning each minute.
    """

    _context: Context
    known: Backlog | None = attrs.field(default=None, init=False)
    """What was there at the last look; None if this relay does not know."""
    _last: tuple[str, str] = attrs.field(default=("", ""), init=False)
    """The subject of the last message that was not taken, and why."""
    _is_stuck: bool = attrs.field(default=False, init=False)
    _next_look: float = attrs.field(default=-math.inf, init=False)
    _next_word: float = attrs.field(default=-math.inf, init=False)

    def note(self, subject: str, reason: str) -> None:
        """Note that the broker did not take a message."""
        self._last = subject, reason

    async def look(self, transaction: DatabaseTransaction) -> None:
        """Count what waits, if it is time to, and tell.

        Cancellation: Is a checkpoint.
        """
        began = trio.current_time()
        if began < self._next_look:
            await trio.lowlevel.checkpoint()
            return
        [(waiting, failed, oldest)] = await transaction.execute(WAITING)
        now = trio.current_time()
        self._next_look = now + max(_SOONEST, _SHARE * (now - began))
        self.known = Backlog(waiting=waiting, failed=failed, oldest=max(0.0, oldest))
        self._tell(self.known)

    def leave(self) -> None:
        """Note that another relay does the work, and tells of it."""
        self.known, self._next_look = None, -math.inf
        self._recover()

    def lose(self, reason: str) -> None:
        """Note that the database cannot be reached; its driver tells what ails it."""
        self.known, self._next_look = None, -math.inf
        if self._may_warn():
            self._context.log.warning("outbox_unreachable", reason=reason)

    def _tell(self, known: Backlog) -> None:
        if not known.failed:
            self._recover()
            return
        subject, reason = self._last
        told = f'the last was "{subject}": {reason}' if reason else "they are tried again"
        self._context.report_degraded(
            f"the broker did not take {known.failed} of {known.waiting} messages in the outbox, the oldest of which"
            f" waits for {known.oldest:.0f} s; {told}"
        )
        if not self._is_stuck:  # the change of state has just been logged
            self._is_stuck, self._next_word = True, trio.current_time() + _SELDOM
        elif self._may_warn():
            self._warn(known)

    def _warn(self, known: Backlog) -> None:
        subject, reason = self._last
        self._context.log.warning(
            "outbox_stuck",
            failed=known.failed,
            waiting=known.waiting,
            oldest=round(known.oldest),
            subject=subject,
            reason=reason,
        )

    def _recover(self) -> None:
        if self._is_stuck:
            self._is_stuck = False
            self._context.report_ready()

    def _may_warn(self) -> bool:
        now = trio.current_time()
        if now < self._next_word:
            return False
        self._next_word = now + _SELDOM
        return True
