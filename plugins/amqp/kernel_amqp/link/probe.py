"""Finds out that the peer does not hear us: heartbeats are not answered, so now and then something is asked that is.

The question is `channel.flow` on a channel that is there for nothing else: on any other, work could hold the answer up.
"""

from __future__ import annotations

from typing import Final, final

import attrs
import trio

from .._errors import ChannelClosedError, LinkLostError
from .channel import LinkChannel
from .writer import Writer

_UNANSWERED: Final = 1.5
"""Intervals without an answer after which the peer does not hear us: with the half before, two since it last did."""
_CARRIED: Final = 32 * 1024
"""Bytes that a line carries in this time at least, both ways together; for more, the answer has more time."""
_TRIPS: Final = 2
"""An answer may take so many times what the one before it took, on a line on which that is more."""


@final
@attrs.define(eq=False)
class Probe:
    """What the peer of one connection is asked, one question at a time, and until when it must answer."""

    _writer: Writer
    _interval: float
    """Seconds between two heartbeats."""
    _round_trip: float
    """Seconds that the last answer took."""
    carried: int = attrs.field(default=0, init=False)
    """Bytes that the answer has to wait for: those ahead of the question, and those that came since."""
    _since: float | None = attrs.field(default=None, init=False)
    """When the time for the answer began; None while nothing is asked."""
    _was_held: bool = attrs.field(default=False, init=False)
    """Whether the answer could not come at the last look."""
    _asked_at: int = attrs.field(default=0, init=False)
    """What the writer had taken before the question."""

    @property
    def patience(self) -> float:
        """Seconds for the answer, from when the question is written."""
        least = _UNANSWERED * self._interval
        return max(least, least * self.carried / _CARRIED, _TRIPS * self._round_trip)

    @property
    def limit(self) -> float:
        """Until when the answer must have come; infinite if none is waited for, or it cannot come."""
        return float("inf") if self._since is None or self._is_held() else self._since + self.patience

    async def run(self, channel: LinkChannel) -> None:  # noqa: ASYNC910  the channel may be gone
        """Open the channel, and ask every half interval until it is gone.

        Cancellation: Is a checkpoint.
        """
        try:
            await self._opened(channel)
            while True:
                await trio.sleep(self._interval / 2)
                await self._answered(channel)
        except (ChannelClosedError, LinkLostError):
            pass
        finally:
            self._since = None

    def look(self, *, late: bool) -> None:
        """Stop the clock while the answer cannot come, and begin anew when it can.

        Args:
            late: Whether the loop was held up, so that the answer may be there and not be read yet.
        """
        now = trio.current_time()
        if self._since is None:
            return
        if self._is_held():
            self._was_held = now - self._since > self._interval / 4  # what was asked just now is about to be written
            self._since = now
        elif late or self._was_held:
            self._was_held = False
            self._since = now

    def _is_held(self) -> bool:
        """Whether the question is not written yet, or not read yet and the peer says so, or known to be read."""
        writer = self._writer
        return writer.sent <= self._asked_at or bool(writer.room.blocked) or writer.seen > self._asked_at

    async def _opened(self, channel: LinkChannel) -> None:
        self._ask()
        await channel.open()
        self._note_answer()

    async def _answered(self, channel: LinkChannel) -> None:
        self._ask()
        await channel.flush()
        self._note_answer()

    def _ask(self) -> None:
        """Begin to wait; the question must be put into the core's buffer before anybody else runs."""
        self._asked_at = self._writer.taken
        self.carried = self._writer.unseen
        self._since = trio.current_time()
        self._was_held = False

    def _note_answer(self) -> None:
        assert self._since is not None
        self._writer.note_seen(self._asked_at)
        self._round_trip = trio.current_time() - self._since
        self._since = None
