"""When ticks are due: intervals on trio's clock, cron on the wall clock.

Both count moments as float seconds on a clock of their own (`now`), so that the dispatcher need not know which of
them it has.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, final

import attrs
import trio
from typing_extensions import override

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from ._clock import WallClock

RESAMPLE: Final = 10.0
"""Seconds between two looks at the wall clock while waiting: how late a jump of it is noticed."""
CORRECTION: Final = 3 * 3600.0
"""Seconds; a clock that goes back further has been corrected, and its new time counts. Source: Debian cron(8)."""
_PATIENCE: Final = 256
"""Moments that are counted before other tasks have their turn."""


@final
@attrs.frozen
class Late:
    """The scheduled moments after one and up to now."""

    count: int = 0
    latest: float | None = None
    kept: tuple[float, ...] = ()
    """The last of them, as many as were asked for; the oldest first."""


class Schedule(ABC):
    """An endless row of moments."""

    __slots__ = ()

    @abstractmethod
    def now(self) -> float:
        """Return the present moment."""

    @abstractmethod
    def after(self, moment: float) -> float:
        """Return the first scheduled moment that is later."""

    @abstractmethod
    def civil(self, moment: float) -> datetime:
        """Return the date and time of a moment, aware of its zone."""

    @abstractmethod
    async def late(self, moment: float, *, keep: int) -> Late:
        """Return what has passed since a moment.

        Cancellation: Is a checkpoint.
        """

    @abstractmethod
    def tolerance(self, distance: float) -> float:
        """Return by how many seconds the clock may go back before its new time counts.

        Args:
            distance: Seconds between the last tick and the next one.
        """

    @abstractmethod
    async def wait(self, moment: float) -> float:
        """Wait for the first scheduled moment after one, and return it.

        Cancellation: Is a checkpoint.
        """


@final
@attrs.define(eq=False, repr=False)
class IntervalSchedule(Schedule):
    """Every `interval` seconds of trio's clock, which knows no jumps. Moments do not drift: each is computed anew."""

    interval: float
    wall: WallClock
    start: float = attrs.field(factory=trio.current_time)

    @override
    def now(self) -> float:
        return trio.current_time()

    @override
    def after(self, moment: float) -> float:
        return self._at(self._last(moment) + 1)

    @override
    def civil(self, moment: float) -> datetime:
        return self.wall().astimezone(UTC) + timedelta(seconds=moment - trio.current_time())

    @override
    async def late(self, moment: float, *, keep: int) -> Late:
        await trio.lowlevel.checkpoint()
        return self.between(moment, self.now(), keep=keep)

    def between(self, moment: float, now: float, *, keep: int) -> Late:
        """Return what is scheduled after a moment and up to another."""
        first, last = self._last(moment) + 1, self._last(now)
        if last < first:
            return Late()
        kept = range(max(first, last - keep + 1), last + 1)
        return Late(last - first + 1, self._at(last), tuple(map(self._at, kept)))

    @override
    def tolerance(self, distance: float) -> float:
        return distance

    @override
    async def wait(self, moment: float) -> float:
        due = self.after(moment)
        await trio.sleep_until(due)
        return due

    def _at(self, index: int) -> float:
        return self.start + index * self.interval

    def _last(self, moment: float) -> int:
        """Return the index of the last moment up to this one; exact, whatever division makes of it."""
        index = math.floor((moment - self.start) / self.interval)
        while self._at(index + 1) <= moment:
            index += 1
        while self._at(index) > moment:
            index -= 1
        return index


@final
@attrs.define(eq=False, repr=False)
class GridSchedule(Schedule):
    """Every `interval` seconds since 1970 on a wall clock: the same moments in every process."""

    wall: WallClock
    _row: IntervalSchedule

    @override
    def now(self) -> float:
        return self.wall().timestamp()

    @override
    def after(self, moment: float) -> float:
        return self._row.after(moment)

    @override
    def civil(self, moment: float) -> datetime:
        return datetime.fromtimestamp(moment, UTC)

    @override
    def tolerance(self, distance: float) -> float:
        return self._row.tolerance(distance)

    @override
    async def late(self, moment: float, *, keep: int) -> Late:
        await trio.lowlevel.checkpoint()
        return self._row.between(moment, self.now(), keep=keep)

    @override
    async def wait(self, moment: float) -> float:
        await trio.lowlevel.checkpoint()
        due = self.after(moment)
        while (left := due - self.now()) > 0:  # noqa: ASYNC110  the clock may jump
            await trio.sleep(min(left, RESAMPLE))
        return due


@final
@attrs.define(eq=False, repr=False)
class CronSchedule(Schedule):
    """By a cron expression. Moments are seconds since 1970 on the wall clock, so no zone can make two of them equal."""

    expression: str
    zone: ZoneInfo
    wall: WallClock
    resample: float = math.inf
    """Seconds between two looks at the wall clock; infinite if it cannot jump."""
    on_set_back: Callable[[float], None] = lambda _: None
    """Told by how many seconds the clock is behind the last tick, when its new time counts."""
    _known: tuple[float, float] = attrs.field(default=(math.nan, math.nan), init=False)
    """A moment and the one after it: each is asked for several times in a row, and parsing takes time."""

    @override
    def now(self) -> float:
        return self.wall().timestamp()

    @override
    def after(self, moment: float) -> float:
        if self._known[0] != moment:
            self._known = (moment, self._following(moment))
        return self._known[1]

    def _following(self, moment: float) -> float:
        from cronsim import CronSim  # noqa: PLC0415  only timers that use cron load it

        for time in CronSim(self.expression, self.civil(moment)):
            # In the hour that the end of summer time repeats, cronsim may name the first pass of a time whose
            # second pass is now (test_a_start_in_the_repeated_hour_does_not_tick_in_the_past).
            if time.timestamp() > moment:
                return time.timestamp()
        return math.inf  # pragma: no cover  the plan refuses an expression that never comes

    @override
    def civil(self, moment: float) -> datetime:
        return datetime.fromtimestamp(moment, UTC).astimezone(self.zone)

    @override
    async def late(self, moment: float, *, keep: int) -> Late:
        await trio.lowlevel.checkpoint()
        count, latest, now = 0, moment, self.now()
        kept: deque[float] = deque(maxlen=keep)
        while (following := self.after(latest)) <= now:
            count, latest = count + 1, following
            kept.append(following)
            if count % _PATIENCE == 0:
                await trio.lowlevel.checkpoint()
        return Late(count, latest, tuple(kept)) if count else Late()

    @override
    def tolerance(self, distance: float) -> float:
        # What happens at fixed times must not happen twice; what happens again and again must not stop for hours.
        minute, hour = self.expression.split()[-5:-3]
        return min(distance, CORRECTION) if minute.startswith("*") or hour.startswith("*") else CORRECTION

    @override
    async def wait(self, moment: float) -> float:
        await trio.lowlevel.checkpoint()
        due = self.after(moment)
        while (now := self.now()) < due:
            if now < moment - self.tolerance(due - moment):
                self.on_set_back(moment - now)
                moment, due = now, self.after(now)
            await trio.sleep(min(due - now, self.resample))
        return due
