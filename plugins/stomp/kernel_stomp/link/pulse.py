"""Signs of life of both sides: sends ours, and finds out that the server is gone, or does not hear us.

Heart-beats are not answered, so a server that does not hear us may still be heard for long. So it is asked something now
and then that it must answer: the end of a transaction in which nothing was done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import attrs
import trio

from ..core import Frame
from .writer import Writer

_MISSED: Final = 2
"""Intervals without a sign of life after which a peer is gone."""
_UNANSWERED: Final = 1.5
"""Intervals without an answer after which it does not hear us: with the half before, two since it last did."""
_CARRIED: Final = 32 * 1024
"""Bytes that a line carries in this time at least, both ways together; for more, the answer has more time."""


@final
@attrs.define(eq=False, repr=False)
class Pulse:
    """Watches over one connection."""

    _writer: Writer
    _interval: float
    """Seconds."""
    _beat: float
    """Seconds between two signs of life of ours, at most."""
    _hears: bool
    _ask: Callable[[Frame, Frame], None]
    """Sends two frames, and has `answered` called for the second."""
    _heard_at: float = attrs.field(factory=trio.current_time, init=False)
    _since: float | None = attrs.field(default=None, init=False)
    """When the time for an answer began; None while nothing is asked."""
    _asked_at: int = attrs.field(default=0, init=False)
    """What the writer had taken with the question."""
    _known: int = attrs.field(default=0, init=False)
    """Bytes that the server has read for certain."""
    _carried: int = attrs.field(default=0, init=False)
    """Bytes that the answer has to wait for."""
    _questions: int = attrs.field(default=0, init=False)

    def hear(self, size: int) -> None:
        """Take note that so many bytes came; for whoever reads."""
        self._heard_at = trio.current_time()
        self._carried += size

    def answered(self) -> None:
        """Take note that the server has answered the question."""
        self._known = max(self._known, self._asked_at)
        self._since = None

    async def wait_dead(self, sweep: Callable[[], None]) -> str:
        """Send signs of life until the server is gone; return how that shows.

        Args:
            sweep: Called at each look.

        Cancellation: Is a checkpoint.
        """
        while True:
            planned = min(trio.current_time() + min(self._interval, self._beat) / 2, *self._limits())
            await trio.sleep_until(planned)
            # Something else may have held up the loop: what came meanwhile is read first, and counts.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            self._adjust(late=trio.current_time() - planned > self._interval / 2)
            if reason := self._sign_of_death():
                return reason
            sweep()
            self._give_sign()

    def _limits(self) -> tuple[float, float, float]:
        """Return until when something must be heard, the write under way must end, and the answer must come."""
        patience, since, never = _MISSED * self._interval, self._writer.writing_since, float("inf")
        heard = self._heard_at + patience if self._hears else never
        written = never if since is None else since + patience
        return heard, written, never if self._since is None else self._since + self._patience

    @property
    def _patience(self) -> float:
        least = _UNANSWERED * self._interval
        return max(least, least * self._carried / _CARRIED)

    def _adjust(self, *, late: bool) -> None:
        """Begin the time for the answer anew while the question is not written, and where the loop was held up."""
        if self._since is not None and (late or self._writer.sent < self._asked_at):
            self._since = trio.current_time()

    def _sign_of_death(self) -> str:
        heard, written, answered = self._limits()
        now = trio.current_time()
        if heard <= now:
            return f"nothing was heard for {_MISSED * self._interval:g} s"
        if written <= now:
            return f"it has taken nothing for {_MISSED * self._interval:g} s"
        return f"it has answered nothing for {self._patience:g} s" if answered <= now else ""

    def _give_sign(self) -> None:
        if self._writer.writing_since is not None:
            return
        if self._since is not None:
            self._writer.write(b"\n")
            return
        self._questions += 1
        transaction = {"transaction": f"kernel-probe-{self._questions}"}
        self._ask(Frame("BEGIN", transaction), Frame("ABORT", transaction))
        self._asked_at, self._since = self._writer.taken, trio.current_time()
        self._carried = self._asked_at - self._known
