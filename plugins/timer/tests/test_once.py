"""A timer with `once` in several processes, in virtual time: who ticks, what is made up for, and what clocks may do."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
from kernel_timer import Tick, TickSkipped, TimerConfig, TimerDispatcher
from trio.testing import MockClock

from kernel import Ack, Event, Outcome, Retry
from kernel.abc import Delivery
from kernel.errors import StartupError
from kernel.testing import RecordingIntake, acknowledge, check_leasing, fake_context, open_intake

from ._place import Place

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.define(eq=False)
class Process:
    """One process of a cluster, as far as a timer sees it."""

    intake: RecordingIntake
    events: list[Event]
    scope: trio.CancelScope

    @property
    def ticks(self) -> list[float]:
        return [tick_of(delivery).scheduled.timestamp() for delivery in self.intake.taken]


def tick_of(delivery: Delivery) -> Tick:
    assert delivery.message is not None
    assert isinstance(delivery.message.payload, Tick)
    return delivery.message.payload


@asynccontextmanager
async def process(
    place: Place,
    answer: Callable[[Delivery], Awaitable[Outcome]] = acknowledge,
    *,
    wall: Callable[[], datetime] | None = None,
    **config: Any,
) -> AsyncGenerator[Process]:
    events: list[Event] = []
    context = fake_context("dispatcher/clock", events=events, driver=place)
    settings = TimerConfig(**{"interval": 10, "once": True, "lease": 3.0, **config})
    timer = TimerDispatcher(config=settings, context=context, wall=wall or system)
    async with open_intake(concurrency=5, answer=answer) as intake, timer.open(), trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: timer.accept(intake, task_status=task_status))
        yield Process(intake, events, nursery.cancel_scope)
        nursery.cancel_scope.cancel()
        intake.cut()


def system() -> datetime:
    return EPOCH + timedelta(seconds=trio.current_time())


def seconds(*processes: Process) -> list[float]:
    """Return when processes have ticked, in order, in seconds after a round time before the test."""
    found = sorted(tick for one in processes for tick in one.ticks)
    origin = min(found, default=0.0)
    return [tick - origin for tick in found]


async def in_vain(_: Delivery) -> Outcome:
    """Handle a tick and never come to an end, as a process does that is killed."""
    await trio.sleep_forever()
    raise AssertionError


async def test_the_place_keeps_its_promises(autojump_clock: MockClock) -> None:
    await check_leasing(Place().open)


@pytest.mark.parametrize("has_clock", [True, False], ids=["clock of the place", "own clock"])
async def test_each_tick_is_one_of_all_processes(autojump_clock: MockClock, has_clock: bool) -> None:
    place = Place(has_clock)

    async with process(place) as one, process(place) as two, process(place) as three:
        await trio.sleep(300)

    assert seconds(one, two, three) == [10.0 * index for index in range(len(seconds(one, two, three)))]
    assert len(seconds(one, two, three)) in {29, 30}


async def test_a_tick_whose_process_is_gone_is_left_out_and_told(autojump_clock: MockClock) -> None:
    place = Place()

    async with dying(place), process(place) as two:
        await trio.sleep(30)

    skipped = [event for event in two.events if isinstance(event, TickSkipped)]
    assert [(event.count, event.reason) for event in skipped] == [(1, "the process that had it is gone")]
    assert seconds(two) == [0, 10] or seconds(two) == [0, 10, 20]


async def test_a_tick_whose_process_is_gone_is_made_up_for(autojump_clock: MockClock) -> None:
    place = Place()

    async with dying(place) as lost, process(place, missed="once") as two:
        await trio.sleep(30)

    again = two.intake.taken[0]
    assert (again.envelope.id, tick_of(again).scheduled) == (lost.envelope.id, tick_of(lost).scheduled)
    assert (again.attempt, again.redelivered) == (2, True)


@asynccontextmanager
async def dying(place: Place) -> AsyncGenerator[Delivery]:
    """Leave the record as a process does that is killed while it has a tick; yields that."""
    async with process(place, in_vain) as one:
        await trio.sleep(15)
        left = dict(place.rows)
    place.rows.update(left)  # nobody has given anything back
    yield one.intake.taken[0]


async def test_a_process_that_is_at_work_keeps_its_tick_for_as_long_as_it_takes(autojump_clock: MockClock) -> None:
    async def long(_: Delivery) -> Outcome:
        await trio.sleep(25)
        return Ack()

    place = Place()

    async with process(place, long, missed="all") as one, process(place, long, missed="all") as two:
        await trio.sleep(200)

    counted = Counter(seconds(one, two))
    assert set(counted.values()) == {1}
    assert len(counted) in {7, 8}


async def test_what_is_missed_while_no_process_runs_is_made_up_for(autojump_clock: MockClock) -> None:
    place = Place()
    async with process(place, missed="all") as before:
        await trio.sleep(25)
    await trio.sleep(100)

    async with process(place, missed="all") as after:
        await trio.sleep(20)

    found = seconds(before, after)
    assert found == [10.0 * index for index in range(len(found))]
    assert len(found) in {14, 15}


async def test_a_tick_that_a_stop_cuts_is_another_processs(autojump_clock: MockClock) -> None:
    place = Place()
    async with process(place, in_vain) as one:
        await trio.sleep(15)
        one.scope.cancel()
        one.intake.cut()

    async with process(place) as two:
        await trio.sleep(3)

    assert two.ticks == one.ticks
    assert two.intake.taken[0].attempt == 1


async def test_a_tick_is_tried_again_by_its_own_process(autojump_clock: MockClock) -> None:
    answers = iter([Retry(1), Retry(1)])

    async def answer(_: Delivery) -> Outcome:
        await trio.lowlevel.checkpoint()
        return next(answers, Ack())

    place = Place()

    async with process(place, answer) as one, process(place, answer) as two:
        await trio.sleep(15)

    taken = [*one.intake.taken, *two.intake.taken]
    assert [delivery.attempt for delivery in taken] == [1, 2, 3]
    assert len({delivery.envelope.id for delivery in taken}) == 1


async def test_a_claim_whose_answer_is_lost_is_one(autojump_clock: MockClock) -> None:
    place = Place()

    async with process(place) as one, process(place) as two:
        for _ in range(20):
            place.loses_answers = 1
            await trio.sleep(10)

    found = seconds(one, two)
    assert found == [10.0 * index for index in range(len(found))]


async def test_a_place_that_is_away_makes_the_timer_wait_and_not_fail(autojump_clock: MockClock) -> None:
    place = Place()

    async with process(place, missed="all") as one:
        await trio.sleep(15)
        place.is_away = True
        await trio.sleep(60)
        place.is_away = False
        await trio.sleep(20)

    found = seconds(one)
    assert found == [10.0 * index for index in range(len(found))]
    assert len(found) >= 8


@pytest.mark.parametrize("minutes", [5, 61, 120, 600])
@pytest.mark.parametrize("cron", ["* * * * *", "*/5 * * * *", "*/30 * * * * *"])
async def test_a_clock_that_is_set_back_does_not_silence_what_happens_again_and_again(
    autojump_clock: MockClock, cron: str, minutes: int
) -> None:
    place, when = Place(ahead=3 * 86_400.0), list[float]()

    async def note(_: Delivery) -> Outcome:
        when.append(trio.current_time())
        return await acknowledge(_)

    async with process(place, note, interval=None, cron=cron), process(place, note, interval=None, cron=cron):
        await trio.sleep(1000)
        place.ahead -= minutes * 60
        await trio.sleep(2000)

    pauses = [later - earlier for earlier, later in pairwise(when)]
    assert max(pauses) <= 2 * 300 + 61


@pytest.mark.parametrize("seed", range(10))
async def test_no_tick_is_doubled_by_steps_of_the_clocks_of_machines(autojump_clock: MockClock, seed: int) -> None:
    """Where the place has a clock, those of the machines do not matter."""
    chance, place = random.Random(seed), Place()
    offsets = [0.0, 0.0, 0.0]

    def wall_of(number: int) -> Callable[[], datetime]:
        return lambda: system() + timedelta(seconds=offsets[number])

    async with (
        process(place, wall=wall_of(0)) as one,
        process(place, wall=wall_of(1)) as two,
        process(place, wall=wall_of(2)) as three,
    ):
        for _ in range(40):
            offsets[chance.randrange(3)] = chance.uniform(-7200, 7200)
            await trio.sleep(chance.uniform(1, 20))

    found = seconds(one, two, three)
    assert found == [10.0 * index for index in range(len(found))]


@pytest.mark.parametrize("seed", range(10))
async def test_no_tick_begins_twice_whatever_the_clock_of_the_place_does(autojump_clock: MockClock, seed: int) -> None:
    """A moment that comes again, since the clock was set back by much, is another tick."""
    chance, place = random.Random(seed), Place(ahead=10 * 86_400.0)

    async with process(place, missed="all") as one, process(place, missed="all") as two, process(place) as three:
        for _ in range(30):
            place.ahead += chance.choice((-7200, -300, -30, -1, 1, 30, 300, 3600))
            await trio.sleep(chance.uniform(1, 60))

    began = Counter(delivery.envelope.id for each in (one, two, three) for delivery in each.intake.taken)
    assert set(began.values()) == {1}
    assert len(began) > 30


@pytest.mark.parametrize("seed", range(10))
async def test_no_tick_begins_twice_whatever_answers_are_lost(autojump_clock: MockClock, seed: int) -> None:
    chance, place = random.Random(seed), Place()

    async with process(place) as one, process(place) as two, process(place) as three:
        for _ in range(40):
            place.loses_answers = chance.choice((0, 0, 1, 2))
            place.is_away = chance.random() < 0.2
            await trio.sleep(chance.uniform(1, 20))
            place.is_away = False

    began = Counter(delivery.envelope.id for each in (one, two, three) for delivery in each.intake.taken)
    assert set(began.values()) == {1}
    assert len(began) > 10


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"last": "x"}', '{"last": 1, "phase": "else"}'])
async def test_a_lease_that_holds_something_else_is_an_error(autojump_clock: MockClock, text: str) -> None:
    place = Place()
    place.rows["timer.test.clock"] = (1, text)
    context = fake_context("dispatcher/clock", driver=place)
    timer = TimerDispatcher(config=TimerConfig(interval=1, once=True), context=context)

    async with open_intake() as intake, timer.open():
        with pytest.raises(StartupError, match="holds what no timer wrote"):
            await timer.accept(intake, task_status=trio.TASK_STATUS_IGNORED)


async def test_a_timer_without_a_place_does_not_start(autojump_clock: MockClock) -> None:
    timer = TimerDispatcher(config=TimerConfig(interval=1, once=True), context=fake_context("dispatcher/t"))

    with pytest.raises(StartupError, match="once needs a driver that holds leases"):
        async with timer.open():
            pass
