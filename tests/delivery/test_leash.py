"""A task makes one attempt after the other in one cancel scope: what is cut in it, and what is not."""

from __future__ import annotations

import math
from contextvars import ContextVar
from typing import Any

import pytest
import trio
from trio.testing import MockClock
from typing_extensions import override

from kernel import Ack, Outcome, Retry, Return, handles
from kernel._core.events import DeliverySettled
from kernel._delivery.leash import Leash
from kernel.errors import TransientError

from ._feed import Feed, Parcel, parcel, running

TIMEOUT = 10.0
SOON = {"timeout": TIMEOUT, "retry": {"attempts": 2, "backoff_initial": 1.0, "backoff_max": 1.0, "jitter": 0.0}}
MARK: ContextVar[str] = ContextVar("mark", default="")


async def settled(feed: Feed, body: object) -> Outcome:
    return await feed.settle(parcel(body))


async def sleeper(seconds: float) -> None:
    await trio.sleep(seconds)


async def test_the_one_after_a_handler_that_was_cut_has_its_whole_time(autojump_clock: MockClock) -> None:
    async with running({"worker": sleeper}, {"worker": SOON}, concurrency=1) as (feed, _):
        outcomes = [await settled(feed, seconds) for seconds in (11, 9, 11, 9)]

    assert [type(outcome) for outcome in outcomes] == [Retry, Ack, Retry, Ack]
    assert trio.current_time() == pytest.approx(10 + 9 + 10 + 9)


@pytest.mark.parametrize("pause", [9.5, 10.0, 10.5, 1000.0])
async def test_the_deadline_of_an_attempt_that_ended_cuts_no_later_one(autojump_clock: MockClock, pause: float) -> None:
    async with running({"worker": sleeper}, {"worker": SOON}, concurrency=1) as (feed, _):
        await settled(feed, 0)
        await trio.sleep(pause)
        began = trio.current_time()
        outcome = await settled(feed, 9)

    assert outcome == Ack()
    assert trio.current_time() - began == pytest.approx(9)


async def test_who_had_to_wait_for_a_place_is_not_cut_by_the_attempt_before(autojump_clock: MockClock) -> None:
    """Both tasks have used their scope until 10; the second narrow one runs from 7 to 13, in one of them."""
    began: list[str] = []

    class Wide:
        @handles("wide")
        async def sleep(self, seconds: float) -> None:
            await trio.sleep(seconds)

    class Narrow:
        @handles("narrow")
        async def sleep(self, seconds: float) -> None:
            began.append("narrow")
            await trio.sleep(seconds)

    workers, tables = {"wide": Wide, "narrow": Narrow}, {"wide": SOON, "narrow": {**SOON, "concurrency": 1}}
    async with running(workers, tables, concurrency=2) as (feed, _):
        for subject, seconds in (("wide", 1), ("narrow", 6)):
            both = [parcel(seconds, subject=subject) for _ in range(2)]
            for one in both:
                feed.send.send_nowait(one)
            for one in both:
                await one.settled.wait()

            assert [one.outcomes for one in both] == [[Ack()], [Ack()]]

    assert began == ["narrow", "narrow"]
    assert trio.current_time() == pytest.approx(13)


async def test_a_slow_settlement_is_not_cut_by_the_deadline_of_its_handler(autojump_clock: MockClock) -> None:
    class Slow(Parcel):
        @override
        async def settle(self, outcome: Outcome) -> None:
            await trio.sleep(4)
            await super().settle(outcome)

    one = Slow(parcel(8).envelope)
    async with running({"worker": sleeper}, {"worker": SOON}, concurrency=1) as (feed, _):
        assert await feed.settle(one) == Ack()
        assert await settled(feed, 9) == Ack()

    assert trio.current_time() == pytest.approx(8 + 4 + 9)


async def test_what_a_handler_raises_when_it_is_cut_is_what_counts(autojump_clock: MockClock) -> None:
    """A nursery in the handler hands on both: that it was cancelled, and what was raised meanwhile."""

    async def worker(payload: Any) -> None:
        async def fail() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise TransientError("on the way out", after=3.0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fail)

    async with running({"worker": worker}, {"worker": SOON}, concurrency=1) as (feed, service):
        assert isinstance(await settled(feed, None), Retry)
        assert isinstance(await settled(feed, None), Retry)

    [first, _] = [event for event in service.events if isinstance(event, DeliverySettled)]
    assert isinstance(first.error, ExceptionGroup)
    assert isinstance(first.error.exceptions[0], TransientError)


async def test_a_handler_that_is_cut_leaves_nothing_in_the_context(autojump_clock: MockClock) -> None:
    found: list[str] = []

    async def worker(payload: str) -> None:
        found.append(MARK.get())
        MARK.set(payload)
        await trio.sleep_forever()

    async with running({"worker": worker}, {"worker": SOON}, concurrency=1) as (feed, _):
        for name in "abc":
            await settled(feed, name)

    assert found == ["", "", ""]


async def test_the_deadline_inside_a_handler_is_its_own(autojump_clock: MockClock) -> None:
    seen: list[float] = []

    async def worker(_: object) -> None:
        seen.append(trio.current_effective_deadline() - trio.current_time())
        await trio.sleep(1)

    async with running({"worker": worker}, {"worker": SOON}, concurrency=1) as (feed, _):
        await settled(feed, 1)
        await settled(feed, 2)
        await feed.settle(parcel(3, deadline=trio.current_time() + 4))

    assert seen == [pytest.approx(TIMEOUT), pytest.approx(TIMEOUT), pytest.approx(4)]


@pytest.mark.parametrize(
    ("wanted", "held"),
    [
        (3.99, 3.99),
        (4.0, 4.0),
        (4.01, 4.0625),
        (10.0, 10.0),
        (10.01, 10.0625),
        (10.0625, 10.0625),
        (10.063, 10.125),
        (1e308, 1e308),
        (math.inf, math.inf),
    ],
)
async def test_a_deadline_that_is_far_away_is_the_next_sixteenth_of_a_second(wanted: float, held: float) -> None:
    """So that the calls which begin soon after one another have the same."""
    leash = Leash()
    with leash.scope:
        leash.hold(wanted)

        assert leash.scope.deadline == held


@pytest.mark.parametrize(("limit", "late"), [(3.9, 0.0), (5.0, 1 / 16)])
async def test_a_handler_is_cut_after_its_timeout_and_hardly_later(
    autojump_clock: MockClock, limit: float, late: float
) -> None:
    async with running({"worker": sleeper}, {"worker": {**SOON, "timeout": limit}}, concurrency=1) as (feed, _):
        for pause in (0.01, 0.02, 0.005):
            await trio.sleep(pause)
            began = trio.current_time()
            outcome = await settled(feed, 1000)

            assert isinstance(outcome, Retry)
            assert limit - 1e-9 <= trio.current_time() - began <= limit + late + 1e-9


async def test_what_is_under_way_at_the_drain_deadline_is_returned_from_a_task_that_was_used_before(
    autojump_clock: MockClock,
) -> None:
    one = parcel(1000)
    async with running({"worker": sleeper}, {"worker": {"timeout": 2000.0}}, concurrency=1) as (feed, _):
        await settled(feed, 0)
        feed.send.send_nowait(one)
        await trio.testing.wait_all_tasks_blocked()

    assert one.outcomes == [Return()]
