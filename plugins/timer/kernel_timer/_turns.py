"""Ticks of a cluster: each is taken by one process, by writing over the record that all of them read."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, final

import attrs
import trio

from kernel import Ack, DeadLetter, Outcome, Retry
from kernel.abc import Context
from kernel.errors import KernelError, StartupError

from ._record import Book, Phase, Record
from ._schedule import RESAMPLE, Schedule

if TYPE_CHECKING:
    from ._config import TimerConfig

_PAUSE: Final = 1.0
"""Seconds after which a place that could not be asked is asked again; and between two looks at a tick that is overdue
and another process's."""
_STEADY: Final = 60.0
"""Seconds that clocks may differ, or go back, without anybody believing that time was set back."""
GONE: Final = "the process that had it is gone"
_OVERDUE: Final = "it was given back, and the next one has come"


@final
@attrs.define(eq=False, repr=False)
class Turn:
    """A tick that this process has taken; nobody else takes it while the record is renewed."""

    _book: Book
    record: Record
    _lease: float
    _context: Context
    is_over: bool = attrs.field(default=False, init=False)
    _lock: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _renewing: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    @property
    def id(self) -> str:
        """What the messages of this tick are called, in whatever process."""
        era = f"/{self.record.era}" if self.record.era else ""
        return f"{self._book.name}@{self.record.last!r}{era}"

    async def renew(self) -> None:  # noqa: ASYNC910  a turn that is over needs none
        """Say again and again that this process goes on, until the turn is over."""
        with self._renewing:
            while not self.is_over:
                await trio.sleep(self._lease / 3)
                try:
                    await self._write("open", self.record.attempt)
                except KernelError as error:
                    self._context.log.warning("lease_not_renewed", reason=str(error))

    async def settled(self, outcome: Outcome, attempt: int) -> None:
        """Note what became of an attempt.

        Raises:
            KernelError: if it could not be written.
        """
        if isinstance(outcome, Ack | DeadLetter):
            await self.end()
        else:  # to be tried again: here, or elsewhere if this process stops
            self.record = attrs.evolve(self.record, attempt=attempt + isinstance(outcome, Retry))
            await trio.lowlevel.checkpoint()

    async def end(self, phase: Phase = "done") -> None:
        """Let others go on.

        Raises:
            KernelError: if it could not be written; the turn is not over.

        Cancellation: Is a checkpoint.
        """
        await self._write(phase, self.record.attempt)
        self._renewing.cancel()

    async def end_surely(self) -> None:
        """Do the same, however long the place cannot be asked."""
        while not self.is_over:
            try:
                await self.end()
            except KernelError as error:
                self._context.report_degraded(str(error))
                await trio.sleep(_PAUSE)
        await trio.lowlevel.checkpoint()

    async def _write(self, phase: Phase, attempt: int) -> None:
        async with self._lock:
            if self.is_over:
                return
            record = attrs.evolve(self.record, phase=phase, attempt=attempt)
            is_ours = await self._book.write(record) or await self._write_again(record)
            if not is_ours:
                self._context.log.warning("lease_lost", scheduled=self.record.last)
            self.is_over = not is_ours or phase != "open"

    async def _write_again(self, record: Record) -> bool:
        """Write over what may be our own: the answer to an earlier write may have been lost."""
        found = await self._book.read()
        if found is None or (found.by, found.last, found.era) != (record.by, record.last, record.era):
            return False
        return found == record or (found.phase == "open" and await self._book.write(record))


@final
@attrs.define(eq=False, repr=False)
class Turns:
    """Takes ticks that no other process takes; one at a time."""

    _book: Book
    schedule: Schedule
    _config: TimerConfig
    _context: Context
    _start: Callable[[Turn], None]
    report: Callable[[float, int, str], None]
    """Told of ticks that are left out: the moment of the first, how many, and why."""
    _keep: int
    _me: str = attrs.field(factory=lambda: secrets.token_hex(8), init=False)
    _awaited: float | None = attrs.field(default=None, init=False)
    """The moment that this process has begun to wait for before it came: it is not missed."""
    current: Turn | None = attrs.field(default=None, init=False)

    async def look(self) -> None:
        """Read the record, and make it if there is none.

        Raises:
            KernelError: if the place cannot be asked.

        Cancellation: Is a checkpoint.
        """
        if await self._book.read() is None:
            await self._book.write(Record(last=self.schedule.now()))

    async def next(self) -> Turn:
        """Wait for a tick that this process takes.

        Raises:
            StartupError: if the lease holds what no timer wrote.

        Cancellation: Is a checkpoint.
        """
        while True:
            try:
                turn = await self._try()
            except StartupError:
                raise
            except KernelError as error:
                self._context.report_degraded(str(error))
                await trio.sleep(_PAUSE)
                continue
            self._context.report_ready()
            if turn is not None:
                return turn

    async def _try(self) -> Turn | None:
        record = await self._book.read()
        if record is None:
            await self._book.write(Record(last=self.schedule.now()))
            return None
        match record.phase:
            case "open":
                return await self._wait_for_other(record)
            case "back":
                return await self._take_back(record)
            case "done":
                return await self._wait_for_tick(record)

    # --- a tick that another process has, or had ------------------------------------------------------------------

    async def _wait_for_other(self, record: Record) -> Turn | None:
        if record.by == self._me:  # it was taken, and the answer to that was lost
            return self._begin(record)  # noqa: ASYNC910  `_try` has read
        left = self._config.lease - self._book.age
        if left > 0:
            due = self.schedule.after(record.last) - self.schedule.now()
            overdue = min(_PAUSE, self._config.lease / 10)
            await trio.sleep(min(left, self._config.lease / 3, max(due, overdue)))
            return None
        if self._config.missed == "skip":
            await self._leave_out(record, GONE)
            return None
        return await self._take(attrs.evolve(record, attempt=record.attempt + 1))

    async def _take_back(self, record: Record) -> Turn | None:
        if self._config.missed == "skip" and self.schedule.now() >= self.schedule.after(record.last):
            await self._leave_out(record, _OVERDUE)
            return None
        return await self._take(record)

    async def _leave_out(self, record: Record, reason: str) -> None:
        if await self._book.write(attrs.evolve(record, phase="done")):
            self.report(record.last, 1, reason)

    # --- the next tick --------------------------------------------------------------------------------------------

    async def _wait_for_tick(self, record: Record) -> Turn | None:
        schedule, last = self.schedule, record.last
        behind, distance = last - schedule.now(), schedule.after(last) - last
        if behind > max(_STEADY, schedule.tolerance(distance)):
            await self._set_back(record, behind)
            return None
        if self._awaited is None or self._awaited <= last:
            late = await schedule.late(last, keep=self._keep)
            if late.kept:
                return await self._claim(record, late.kept[0])
            self._awaited = schedule.after(last if late.latest is None else late.latest)
        if (left := self._awaited - schedule.now()) > 0:
            await trio.sleep(min(left, RESAMPLE))
        if schedule.now() < self._awaited:
            return None  # noqa: ASYNC910  `_try` has read
        keep = max(1, self._keep)
        later = await schedule.late(self._awaited, keep=keep)
        return await self._claim(record, self._awaited if later.count < keep else later.kept[0])

    async def _claim(self, record: Record, moment: float) -> Turn | None:
        total = await self.schedule.late(record.last, keep=0)
        rest = await self.schedule.late(moment, keep=0)
        missed = max(0, total.count - rest.count - 1)
        turn = await self._take(Record(last=moment, missed=missed, era=record.era))
        if turn is not None and missed:
            self.report(self.schedule.after(record.last), missed, "missed")
        return turn

    async def _set_back(self, record: Record, seconds: float) -> None:
        now = self.schedule.now()
        if await self._book.write(Record(last=now, era=record.era + 1)):
            self._context.log.warning("clock_set_back", seconds=round(seconds, 1))
        self._awaited = None

    async def _take(self, record: Record) -> Turn | None:
        record = attrs.evolve(record, phase="open", by=self._me)
        return self._begin(record) if await self._book.write(record) else None

    def _begin(self, record: Record) -> Turn:
        self.current = Turn(self._book, record, self._config.lease, self._context)
        self._start(self.current)
        return self.current


@asynccontextmanager
async def open_turns(
    book: Book,
    schedule: Schedule,
    config: TimerConfig,
    context: Context,
    *,
    report: Callable[[float, int, str], None],
    keep: int,
) -> AsyncGenerator[Turns]:
    """Take turns while inside; one that is not over on the way out is given back, for another process to take."""
    try:
        async with trio.open_nursery() as nursery:
            turns = Turns(book, schedule, config, context, lambda turn: nursery.start_soon(turn.renew), report, keep)
            try:
                yield turns
            finally:
                await _give_back(turns, context)  # noqa: ASYNC102  it shields itself
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__  # of the body: the nursery is not its business


async def _give_back(turns: Turns, context: Context) -> None:
    if turns.current is not None and not turns.current.is_over:
        with trio.move_on_after(context.stop_timeout / 2, shield=True):
            try:
                await turns.current.end("back")
            except KernelError as error:
                context.log.warning("tick_not_given_back", reason=str(error))
    await trio.lowlevel.cancel_shielded_checkpoint()
