"""The rate of a dispatcher: how fast deliveries are started, and that nothing waits for it in a stop."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from kernel import Ack, Return
from kernel._core.events import EventHub
from kernel._core.policies import RatePolicy
from kernel._delivery.bucket import Bucket
from kernel._delivery.intake import KernelIntake

from ._feed import parcel, running


async def test_a_burst_is_started_at_once_and_the_rest_at_the_rate(autojump_clock: MockClock) -> None:
    started: list[float] = []

    async def worker(payload: Any) -> None:
        started.append(round(trio.current_time() - begin, 6))

    async with running({"worker": worker}, rate={"messages": 2, "per": 1.0}) as (feed, service):
        begin = trio.current_time()
        for number in range(7):
            feed.send.send_nowait(parcel(number))
        await service.wait_settled(7)

    assert started == [0, 0, 0.5, 1.0, 1.5, 2.0, 2.5]


async def test_after_a_quiet_time_only_one_burst_is_allowed(autojump_clock: MockClock) -> None:
    bucket = Bucket(RatePolicy(messages=3, per=30.0))
    times: list[float] = []
    await trio.sleep(1000)
    begin = trio.current_time()
    for _ in range(5):
        await bucket.take()
        times.append(round(trio.current_time() - begin, 6))

    assert times == [0, 0, 0, 10, 20]


@pytest.mark.parametrize("policy", [{"messages": 3, "per": 0.7}, {"messages": 7, "per": 1.0}], ids=str)
async def test_over_a_long_time_no_more_is_started_than_the_rate_allows(
    policy: dict[str, Any], autojump_clock: MockClock
) -> None:
    bucket = Bucket(RatePolicy(**policy))
    begin = trio.current_time()
    for _ in range(1000):
        await bucket.take()
    seconds = trio.current_time() - begin

    assert seconds == pytest.approx((1000 - policy["messages"]) * policy["per"] / policy["messages"])


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (RatePolicy(messages=1, per=30.0), 2),
        (RatePolicy(messages=1, per=3600.0), 1),
        (RatePolicy(messages=5, per=60.0), 5),
        (RatePolicy(messages=100), 10),
        (None, 10),
    ],
)
async def test_a_source_sends_no_more_ahead_than_can_start_before_long(policy: RatePolicy | None, wanted: int) -> None:
    async with trio.open_nursery() as nursery:
        bucket = None if policy is None else Bucket(policy)
        intake = KernelIntake("dispatcher/test", 10, [], cast("Any", None), EventHub(), nursery, bucket)

        assert (intake.prefetch, intake.concurrency) == (wanted, 10)


async def test_who_is_cancelled_while_waiting_takes_no_token(autojump_clock: MockClock) -> None:
    bucket = Bucket(RatePolicy(messages=1, per=10.0))
    await bucket.take()
    begin = trio.current_time()
    with trio.move_on_after(4):
        await bucket.take()
    await bucket.take()

    assert trio.current_time() - begin == pytest.approx(10)


async def test_a_stop_does_not_wait_for_the_rate(autojump_clock: MockClock) -> None:
    async def worker(payload: Any) -> None: ...

    first, second = parcel(1), parcel(2)
    async with running({"worker": worker}, rate={"messages": 1, "per": 3600.0}, concurrency=1) as (feed, _):
        await feed.settle(first)
        feed.send.send_nowait(second)
        await trio.sleep(1)
        begin = trio.current_time()

    assert trio.current_time() - begin < 0.1
    assert (first.outcomes, second.outcomes) == ([Ack()], [Return()])
