"""When a timer ticks, in virtual time: intervals, overlap, what is missed, attempts, cancellation."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from kernel_timer import Tick, TickFailed, TickSkipped, TimerConfig, TimerDispatcher, VirtualClock

from kernel import Ack, DeadLetter, Retry, Return
from kernel.errors import SettledError
from kernel.testing import RecordingIntake, acknowledge, fake_context, open_intake

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from trio.testing import MockClock

    from kernel import Event, Outcome
    from kernel.abc import Delivery

START = datetime(2026, 1, 1, tzinfo=UTC)


@attrs.define(eq=False)
class Run:
    """A timer at work."""

    intake: RecordingIntake
    events: list[Event]
    scope: trio.CancelScope

    @property
    def ticks(self) -> list[Tick]:
        return [tick_of(delivery) for delivery in self.intake.taken]

    @property
    def seconds(self) -> list[float]:
        return [(tick.scheduled - START).total_seconds() for tick in self.ticks]

    @property
    def missed(self) -> list[int]:
        return [tick.missed for tick in self.ticks]


def tick_of(delivery: Delivery) -> Tick:
    assert delivery.message is not None
    assert isinstance(delivery.message.payload, Tick)
    return delivery.message.payload


@asynccontextmanager
async def running(
    config: TimerConfig, answer: Callable[[Delivery], Awaitable[Outcome]] = acknowledge, *, start: datetime = START
) -> AsyncGenerator[Run]:
    events: list[Event] = []
    context = fake_context("dispatcher/clock", events=events)
    timer = TimerDispatcher(config=config, context=context, wall=VirtualClock(start))
    async with open_intake(concurrency=5, answer=answer) as intake, timer.open(), trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: timer.accept(intake, task_status=task_status))
        yield Run(intake, events, nursery.cancel_scope)
        nursery.cancel_scope.cancel()


def lasting(*seconds: float) -> Callable[[Delivery], Awaitable[Outcome]]:
    """Return an answer that takes so long for each tick in turn, and no time after that."""
    times = iter(seconds)

    async def answer(_: Delivery) -> Outcome:
        await trio.sleep(next(times, 0))
        return Ack()

    return answer


def answering(*outcomes: Outcome) -> Callable[[Delivery], Awaitable[Outcome]]:
    """Return an answer that gives these outcomes in turn, and `Ack()` after that."""
    rest = iter(outcomes)

    async def answer(_: Delivery) -> Outcome:
        await trio.lowlevel.checkpoint()
        return next(rest, Ack())

    return answer


async def test_an_interval_ticks_from_scheduled_time_to_scheduled_time(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(interval=10), lasting(3, 4, 0.5)) as run:
        await trio.sleep(35)

    assert run.seconds == [10, 20, 30]
    assert run.missed == [0, 0, 0]


@pytest.mark.slow
async def test_an_interval_does_not_drift(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(interval=0.1), lasting(*[0.05] * 1000)) as run:
        await trio.sleep(100.05)

    assert len(run.seconds) == 1000
    assert run.seconds[-1] == pytest.approx(100, abs=1e-5)


@pytest.mark.slow
async def test_a_month_of_ticks_passes_at_once(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(cron="*/30 * * * *")) as run:
        await trio.sleep(timedelta(days=31).total_seconds() + 1)

    assert len(run.ticks) == 31 * 48
    assert run.ticks[-1].scheduled == datetime(2026, 2, 1, tzinfo=UTC)


async def test_the_first_tick_may_be_immediate(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(interval=10, immediate=True)) as run:
        await trio.sleep(15)

    assert run.seconds == [0, 10]


async def test_an_immediate_tick_of_cron_does_not_shift_the_others(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(cron="0 * * * *", immediate=True), start=START + timedelta(seconds=90)) as run:
        await trio.sleep(3600)

    assert run.seconds == [90, 3600]


async def test_jitter_delays_ticks_and_not_what_they_stand_for(autojump_clock: MockClock) -> None:
    handled: list[float] = []
    began = trio.current_time()

    async def answer(_: Delivery) -> Outcome:
        handled.append(trio.current_time() - began)
        return await acknowledge(_)

    async with running(TimerConfig(interval=10, jitter=9), answer) as run:
        await trio.sleep(1000)

    lateness = [at - 10 * index for index, at in enumerate(handled, start=1)]
    assert run.seconds == pytest.approx([10.0 * index for index in range(1, len(handled) + 1)])
    assert all(0 <= late < 9 for late in lateness)
    assert max(lateness) - min(lateness) > 1


async def test_ticks_never_overlap(autojump_clock: MockClock) -> None:
    most = 0

    async def answer(_: Delivery) -> Outcome:
        nonlocal most
        most = max(most, run.intake.in_flight)
        await trio.sleep(25)
        return Ack()

    async with running(TimerConfig(interval=10, missed="all"), answer) as run:
        await trio.sleep(300)

    assert most == 1


async def test_missed_skip_goes_on_with_the_next_scheduled_time(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(interval=10, missed="skip"), lasting(35)) as run:
        await trio.sleep(65)

    assert run.seconds == [10, 50, 60]
    assert run.missed == [0, 3, 0]
    assert [(e.count, (e.scheduled - START).total_seconds()) for e in skipped(run)] == [(3, 20)]


async def test_missed_once_makes_up_for_all_with_one_tick(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(interval=10, missed="once"), lasting(35)) as run:
        await trio.sleep(65)

    assert run.seconds == [10, 40, 50, 60]
    assert run.missed == [0, 2, 0, 0]


async def test_missed_all_makes_up_for_each(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(interval=10, missed="all"), lasting(35)) as run:
        await trio.sleep(65)

    assert run.seconds == [10, 20, 30, 40, 50, 60]
    assert run.missed == [0] * 6
    assert skipped(run) == []


async def test_missed_all_is_bounded(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(interval=10, missed="all", max_missed=2), lasting(55)) as run:
        await trio.sleep(75)

    assert run.seconds == [10, 50, 60, 70]
    assert run.missed == [0, 3, 0, 0]


@pytest.mark.parametrize(
    ("missed", "seconds"), [("skip", [60, 240]), ("once", [60, 180, 240]), ("all", [60, 120, 180, 240])]
)
async def test_missed_means_the_same_for_cron(missed: str, seconds: list[float], autojump_clock: MockClock) -> None:
    config = TimerConfig(cron="* * * * *", missed=missed)  # type: ignore[arg-type]  # parametrised

    async with running(config, lasting(130)) as run:
        await trio.sleep(245)

    assert run.seconds == seconds


async def test_a_tick_is_tried_again_before_the_next_one(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(interval=10), answering(Retry(3), Retry(3))) as run:
        await trio.sleep(19)

    assert [delivery.attempt for delivery in run.intake.taken] == [1, 2, 3]
    assert [delivery.redelivered for delivery in run.intake.taken] == [False, True, True]
    assert run.seconds == [10, 10, 10]
    assert len({delivery.envelope.id for delivery in run.intake.taken}) == 1


async def test_a_tick_is_not_tried_again_after_the_next_one(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(interval=10), answering(Retry(10))) as run:
        await trio.sleep(25)

    assert run.seconds == [10, 20]
    assert [event.reason for event in skipped(run)] == ["the next tick comes before the next attempt"]


async def test_a_tick_that_is_given_back_is_the_same_attempt(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(interval=10), answering(Return())) as run:
        await trio.sleep(15)

    assert [delivery.attempt for delivery in run.intake.taken] == [1, 1]


async def test_a_tick_that_fails_for_good_is_reported(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(interval=10), answering(DeadLetter("no"))) as run:
        await trio.sleep(25)

    failed = [event for event in run.events if isinstance(event, TickFailed)]
    assert [(event.component, event.reason) for event in failed] == [("dispatcher/clock", "no")]
    assert run.seconds == [10, 20]


async def test_a_tick_in_flight_is_finished_when_accepting_stops(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(interval=10), lasting(30)) as run:
        await trio.sleep(15)
        run.scope.cancel()
        settled_early = list(run.intake.settled)

    assert settled_early == []
    assert [settled.outcome for settled in run.intake.settled] == [Ack()]


async def test_a_tick_that_is_cut_is_returned(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(interval=10), lasting(30)) as run:
        await trio.sleep(15)
        run.scope.cancel()
        run.intake.cut()

    assert [settled.outcome for settled in run.intake.settled] == [Return()]


async def test_the_subject_is_that_of_the_dispatcher_unless_configured(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(interval=10)) as default, running(TimerConfig(interval=10, subject="a.b")) as named:
        await trio.sleep(11)

    assert default.intake.taken[0].envelope.subject == "tick.clock"
    assert named.intake.taken[0].envelope.subject == "a.b"


async def test_a_tick_cannot_be_settled_twice(autojump_clock: MockClock) -> None:
    async with running(TimerConfig(interval=10)) as run:
        await trio.sleep(11)

    with pytest.raises(SettledError):
        await run.intake.taken[0].settle(Ack())


def skipped(run: Run) -> list[TickSkipped]:
    return [event for event in run.events if isinstance(event, TickSkipped)]
