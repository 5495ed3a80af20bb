"""The dispatcher: waits for the next moment, has the tick handled, and decides about moments that passed meanwhile."""

from __future__ import annotations

import importlib
import math
import random
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, assert_never, cast, final

import trio
from typing_extensions import override

from kernel import Ack, DeadLetter, Envelope, Retry, Return
from kernel.abc import Context, Dispatcher, Intake, Leasing
from kernel.errors import StartupError

from ._clock import VirtualClock, WallClock, wall_clock
from ._config import TimerConfig, problems, subject_of
from ._tick import Tick, TickDelivery, TickFailed, TickSkipped

if TYPE_CHECKING:
    from kernel import Outcome

    from ._record import Book
    from ._schedule import Schedule
    from ._turns import Turn, Turns

RETURN_PAUSE: Final = 1.0
"""Seconds before a tick is tried again that was given back; giving it back at once, again and again, would spin."""


@final
class TimerDispatcher(Dispatcher):
    """Delivers a `Tick` at each scheduled time. Ticks never overlap: one starts when the one before is settled.

    Of several processes of the service, only the one that leads ticks.

    Args:
        config: When to tick.
        context: From the kernel.
        wall: The wall clock; a test gives a `VirtualClock` that starts when it likes. None takes the one that fits
            trio's clock.
    """

    Config: ClassVar[type[object]] = TimerConfig
    driver_fix: ClassVar[str] = "write `once = true` to have a tick once in a cluster"

    def __init__(self, *, config: TimerConfig, context: Context, wall: WallClock | None = None) -> None:
        self._config = config
        self._context = context
        self._wall = wall
        self._random = random.Random()
        self._turns: Turns | None = None
        self._keep = {"skip": 0, "once": 1, "all": config.max_missed}[config.missed]

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        return problems(cast("TimerConfig", config))

    @classmethod
    @override
    def only_subject(cls, config: object, name: str) -> str | None:
        return subject_of(cast("TimerConfig", config), name)

    @classmethod
    @override
    def needs_with(cls, config: object) -> type[object] | None:
        return Leasing if cast("TimerConfig", config).once else None

    @classmethod
    @override
    def preload(cls) -> None:
        for module in ("kernel_timer._schedule", "kernel_timer._turns", "zoneinfo"):
            importlib.import_module(module)

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        if not self._config.once:
            await trio.lowlevel.checkpoint()
            yield
            return
        from ._turns import open_turns  # noqa: PLC0415  see `preload`

        book = self._book()
        schedule = self._schedule(book)
        report = partial(self._report, schedule)
        async with open_turns(
            book, schedule, self._config, self._context, report=report, keep=self._keep
        ) as self._turns:
            yield

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        if self._turns is not None:
            await self._accept_turns(intake, self._turns, task_status)
            return
        schedule = self._schedule()
        task_status.started()
        await self._context.crew.wait_leading()
        moment = schedule.now()
        if self._config.immediate:
            await self._tick(intake, schedule, moment, missed=0)
        while True:
            moment, missed = await self._next(schedule, moment)
            await self._tick(intake, schedule, moment, missed=missed)

    async def _accept_turns(self, intake: Intake, turns: Turns, task_status: trio.TaskStatus[None]) -> None:
        await turns.look()
        task_status.started()
        while True:
            turn = await turns.next()
            record = turn.record
            await self._tick(intake, turns.schedule, record.last, missed=record.missed, turn=turn)
            await turn.end_surely()

    def _book(self) -> Book:
        from ._record import Book  # noqa: PLC0415  see `preload`

        context = self._context
        if not isinstance(context.driver, Leasing):
            raise StartupError(f"{context.id}: once needs a driver that holds leases")
        name = f"timer.{_plain(context.service)}.{_plain(context.name)}"
        return Book(name, context.driver.lease(name), self._wall or wall_clock())

    def _schedule(self, book: Book | None = None) -> Schedule:
        from ._schedule import RESAMPLE, CronSchedule, GridSchedule, IntervalSchedule  # noqa: PLC0415  see `preload`

        wall = self._wall or wall_clock() if book is None else book.now
        if self._config.interval is not None:
            row = IntervalSchedule(self._config.interval, wall, 0.0 if book else trio.current_time())
            return GridSchedule(wall, row) if book else row
        if self._config.cron is None:
            raise StartupError(f"{self._context.id}: give exactly one of interval and cron")
        from zoneinfo import ZoneInfo  # noqa: PLC0415  as above

        resample = math.inf if isinstance(wall, VirtualClock) else RESAMPLE
        return CronSchedule(self._config.cron, ZoneInfo(self._config.zone), wall, resample, self._set_back)

    def _set_back(self, seconds: float) -> None:
        self._context.log.warning("clock_set_back", seconds=round(seconds, 1))

    async def _next(self, schedule: Schedule, previous: float) -> tuple[float, int]:
        """Wait for the next moment to tick at; return it and how many scheduled ones before it are left out."""
        late = await schedule.late(previous, keep=self._keep)
        left_out = late.count - len(late.kept)
        if late.kept:
            moment = late.kept[0]
        else:
            due = await schedule.wait(previous if late.latest is None else late.latest)
            moment, more = await self._coalesce(schedule, due)
            left_out += more
        if left_out:
            self._report(schedule, schedule.after(previous), left_out, "missed")
        return moment, left_out

    async def _coalesce(self, schedule: Schedule, due: float) -> tuple[float, int]:
        """Return what to tick at, and how many are left out, when more has passed than what was waited for.

        So it is after the process was suspended or the clock has jumped ahead: that counts once, unless all count.
        """
        keep = max(1, self._keep)
        later = await schedule.late(due, keep=keep)
        if later.count < keep:
            return due, 0
        return later.kept[0], later.count + 1 - keep

    async def _tick(
        self, intake: Intake, schedule: Schedule, moment: float, *, missed: int, turn: Turn | None = None
    ) -> None:
        """Have a tick handled until it is settled for good, or is another process's."""
        await trio.sleep(self._config.jitter * self._random.random())
        tick = Tick(scheduled=schedule.civil(moment), missed=missed)
        attempt, note = (1, None) if turn is None else (turn.record.attempt, turn.settled)
        envelope, until = self._envelope(tick, turn), schedule.after(moment)
        while True:
            outcome = await intake.handle(TickDelivery(tick, envelope, attempt, note))
            pause = self._pause(outcome, tick)
            if pause is None or (turn is not None and turn.is_over):
                return
            if schedule.now() + pause >= until:
                self._report(schedule, moment, 1, "the next tick comes before the next attempt")
                return
            await trio.sleep(pause)
            attempt += isinstance(outcome, Retry)

    def _pause(self, outcome: Outcome, tick: Tick) -> float | None:
        """Return the seconds after which a tick is to be tried again, or None if it is not."""
        match outcome:
            case Ack():
                return None
            case DeadLetter(reason):
                self._context.emit(TickFailed(component=self._context.id, scheduled=tick.scheduled, reason=reason))
                self._context.log.error("tick_failed", scheduled=tick.scheduled.isoformat(), reason=reason)
                return None
            case Retry(after):
                return after
            case Return():
                return RETURN_PAUSE
        assert_never(outcome)

    def _envelope(self, tick: Tick, turn: Turn | None) -> Envelope:
        subject = subject_of(self._config, self._context.name)
        headers = {"timer-scheduled": tick.scheduled.isoformat(), "timer-missed": tick.missed}
        if turn is None:
            return Envelope(subject=subject, headers=headers)
        return Envelope(subject=subject, headers=headers, id=turn.id)

    def _report(self, schedule: Schedule, moment: float, count: int, reason: str) -> None:
        scheduled = schedule.civil(moment)
        self._context.emit(TickSkipped(component=self._context.id, scheduled=scheduled, count=count, reason=reason))
        self._context.log.warning("tick_skipped", scheduled=scheduled.isoformat(), count=count, reason=reason)


def _plain(name: str) -> str:
    """Return a name as a part of one of a lease; what has no place there is spelt out."""
    return "".join(one if one.isascii() and (one.isalnum() or one in "-_") else f"_{ord(one):x}_" for one in name)
