"""Civil time: summer time, jumps of the clock, and which clock is used."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import attrs
import pytest
import structlog
import trio
from kernel_timer import Tick, TimerConfig, TimerDispatcher, VirtualClock
from kernel_timer._clock import runs_in_real_time, system_clock, wall_clock
from kernel_timer._schedule import RESAMPLE, CronSchedule
from trio.testing import MockClock

from kernel import Ack, Outcome
from kernel.abc import Delivery
from kernel.testing import fake_context, open_intake

BERLIN = ZoneInfo("Europe/Berlin")


@attrs.define(eq=False)
class JumpingClock:
    """A wall clock that somebody sets."""

    clock: VirtualClock
    offset: timedelta = timedelta()

    def __call__(self) -> datetime:
        return self.clock() + self.offset


async def ticks(config: TimerConfig, start: datetime, *, hours: float) -> list[str]:
    """Return the local times that a timer ticks at."""
    timer = TimerDispatcher(config=config, context=fake_context("dispatcher/t"), wall=VirtualClock(start))
    async with open_intake() as intake:
        with trio.move_on_after(hours * 3600):
            await timer.accept(intake, task_status=trio.TASK_STATUS_IGNORED)
    return [
        delivery.message.payload.scheduled.strftime("%d %H:%M %Z")
        for delivery in intake.taken
        if delivery.message is not None and isinstance(delivery.message.payload, Tick)
    ]


async def jumping(jump: timedelta, *, hours: float) -> list[str]:
    """Return the ticks of an hourly timer from 12:30 whose clock is set at 15:30, as time and missed."""
    wall = JumpingClock(VirtualClock(datetime(2026, 5, 5, 12, 30, tzinfo=UTC)))
    timer = TimerDispatcher(config=TimerConfig(cron="0 * * * *"), context=fake_context("dispatcher/t"), wall=wall)
    async with open_intake() as intake, trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: timer.accept(intake, task_status=task_status))
        await trio.sleep(3 * 3600)
        wall.offset = jump
        await trio.sleep(hours * 3600)
        nursery.cancel_scope.cancel()
    return [
        f"{delivery.message.payload.scheduled:%H}+{delivery.message.payload.missed}"
        for delivery in intake.taken
        if delivery.message is not None and isinstance(delivery.message.payload, Tick)
    ]


SPRING = datetime(2026, 3, 28, 12, tzinfo=BERLIN)
AUTUMN = datetime(2026, 10, 24, 12, tzinfo=BERLIN)


async def test_a_time_that_does_not_exist_is_made_up_for_at_once(autojump_clock: MockClock) -> None:
    """Source: Debian cron(8), local time changes of less than three hours."""
    seen = await ticks(TimerConfig(cron="30 2 * * *", zone="Europe/Berlin"), SPRING, hours=48)

    assert seen == ["29 03:00 CEST", "30 02:30 CEST"]


async def test_a_time_that_exists_twice_ticks_once(autojump_clock: MockClock) -> None:
    seen = await ticks(TimerConfig(cron="30 2 * * *", zone="Europe/Berlin"), AUTUMN, hours=48)

    assert seen == ["25 02:30 CEST", "26 02:30 CET"]


async def test_an_hourly_timer_ticks_in_each_hour_that_passes_in_spring(autojump_clock: MockClock) -> None:
    seen = await ticks(TimerConfig(cron="0 * * * *", zone="Europe/Berlin"), SPRING, hours=16.5)

    assert seen[-4:] == ["29 01:00 CET", "29 03:00 CEST", "29 04:00 CEST", "29 05:00 CEST"]


async def test_an_hourly_timer_ticks_in_each_hour_that_passes_in_autumn(autojump_clock: MockClock) -> None:
    seen = await ticks(TimerConfig(cron="0 * * * *", zone="Europe/Berlin"), AUTUMN, hours=16.5)

    assert seen[-4:] == ["25 01:00 CEST", "25 02:00 CEST", "25 02:00 CET", "25 03:00 CET"]


async def test_a_start_in_the_repeated_hour_does_not_tick_in_the_past(autojump_clock: MockClock) -> None:
    second_pass = datetime(2026, 10, 25, 2, 15, tzinfo=BERLIN, fold=1)

    seen = await ticks(TimerConfig(cron="30 2 * * *", zone="Europe/Berlin"), second_pass, hours=30)

    assert seen == ["26 02:30 CET"]


async def test_cron_is_in_utc_unless_configured(autojump_clock: MockClock) -> None:
    seen = await ticks(TimerConfig(cron="30 2 * * *"), SPRING, hours=24)

    assert seen == ["29 02:30 UTC"]


@pytest.mark.slow
@pytest.mark.parametrize("back", [5, 60, 120, 179, 600], ids=lambda minutes: f"{minutes}-minutes")
@pytest.mark.parametrize(
    ("cron", "distance"), [("* * * * *", 60), ("*/5 * * * *", 300), ("*/10 * * * * *", 10), ("30 * * * *", 3600)]
)
async def test_a_clock_that_is_set_back_does_not_silence_what_happens_again_and_again(
    autojump_clock: MockClock, cron: str, distance: float, back: float
) -> None:
    """From the step on, no silence is longer than two distances; and the step is told if a tick depended on it."""
    wall = JumpingClock(VirtualClock(datetime(2026, 5, 5, 12, 0, 7, tzinfo=UTC)))
    times: list[float] = []
    with structlog.testing.capture_logs() as logs:
        context = attrs.evolve(fake_context("dispatcher/t"), log=structlog.get_logger())
        timer = TimerDispatcher(config=TimerConfig(cron=cron), context=context, wall=wall)

        async def answer(_: Delivery) -> Outcome:
            times.append(trio.current_time())
            return Ack()

        async with open_intake(answer=answer) as intake, trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: timer.accept(intake, task_status=task_status))
            await trio.sleep(4 * 3600 + 1)
            wall.offset = timedelta(minutes=-back)
            await trio.sleep(3 * 3600)
            nursery.cancel_scope.cancel()

    assert max(later - earlier for earlier, later in pairwise(times)) <= 2 * distance + RESAMPLE
    assert [line["event"] for line in logs] == ["clock_set_back"] * (back * 60 > distance)


async def test_a_fixed_time_does_not_come_twice_when_the_clock_is_set_back(autojump_clock: MockClock) -> None:
    wall = JumpingClock(VirtualClock(datetime(2026, 5, 5, 12, 0, tzinfo=UTC)))
    timer = TimerDispatcher(config=TimerConfig(cron="0 15 * * *"), context=fake_context("dispatcher/t"), wall=wall)
    async with open_intake() as intake, trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: timer.accept(intake, task_status=task_status))
        await trio.sleep(3.5 * 3600)
        wall.offset = timedelta(hours=-2)
        await trio.sleep(10 * 3600)
        nursery.cancel_scope.cancel()

    assert len(intake.taken) == 1


async def test_a_forward_jump_ticks_once(autojump_clock: MockClock) -> None:
    assert await jumping(timedelta(hours=5), hours=1) == ["13+0", "14+0", "15+0", "20+4", "21+0"]


async def test_a_backward_jump_within_the_distance_does_not_tick_twice(autojump_clock: MockClock) -> None:
    assert await jumping(timedelta(hours=-1), hours=2) == ["13+0", "14+0", "15+0", "16+0"]


async def test_a_clock_that_was_far_ahead_is_believed_when_it_is_corrected(autojump_clock: MockClock) -> None:
    assert await jumping(timedelta(hours=-10), hours=1) == ["13+0", "14+0", "15+0", "06+0"]


async def test_a_jump_is_noticed_within_the_time_between_two_looks(autojump_clock: MockClock) -> None:
    wall = JumpingClock(VirtualClock(datetime(2026, 5, 5, tzinfo=UTC)))
    schedule = CronSchedule("0 12 * * *", ZoneInfo("UTC"), wall, RESAMPLE)
    began = trio.current_time()
    wall.offset = timedelta()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(schedule.wait, schedule.now())
        await trio.sleep(1)
        wall.offset = timedelta(hours=12)

    assert trio.current_time() - began <= RESAMPLE


async def test_counting_a_long_absence_lets_others_run(autojump_clock: MockClock) -> None:
    wall = JumpingClock(VirtualClock(datetime(2026, 1, 1, tzinfo=UTC)))
    schedule = CronSchedule("* * * * *", ZoneInfo("UTC"), wall)
    before = schedule.now()
    wall.offset = timedelta(days=1)
    turns = 0

    async def other() -> None:
        nonlocal turns
        for _ in range(100):
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        late = await schedule.late(before, keep=2)
        nursery.cancel_scope.cancel()

    assert (late.count, len(late.kept)) == (1440, 2)
    assert turns > 3


async def test_in_virtual_time_the_wall_clock_goes_on_with_trio(autojump_clock: MockClock) -> None:
    wall = wall_clock()
    before = wall()

    await trio.sleep(86_400)

    assert wall() - before == timedelta(days=1)
    assert abs(before - datetime.now(UTC)) < timedelta(minutes=1)


async def test_in_real_time_the_wall_clock_is_that_of_the_system() -> None:
    assert runs_in_real_time()
    assert wall_clock() is system_clock
    assert abs(system_clock() - datetime.now(UTC)) < timedelta(seconds=5)


@pytest.mark.parametrize("clock", [MockClock(), MockClock(rate=100)], ids=["stopped", "fast"])
def test_a_clock_that_is_not_as_fast_as_the_world_is_virtual(clock: MockClock) -> None:
    async def look() -> bool:
        await trio.lowlevel.checkpoint()
        return runs_in_real_time()

    assert trio.run(look, clock=clock) is False
