"""Every delivery is handled in the context of whoever submitted it, and leaves nothing to the next one."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kernel import Retry, current_delivery, handles

from ._feed import Feed, Parcel, parcel, running

TRACE: ContextVar[str] = ContextVar("trace", default="none")


class Traced(Parcel):
    """A delivery whose source says what it belongs to when it submits it."""

    trace = ""


def traced(number: int, **fields: Any) -> Traced:
    one = Traced(parcel(number, **fields).envelope)
    one.trace = f"trace-{number}"
    return one


async def settle_all(feed: Feed, *parcels: Parcel) -> None:
    feed.before = lambda delivery: TRACE.set(delivery.trace) if isinstance(delivery, Traced) else None
    for one in parcels:
        feed.send.send_nowait(one)
    for one in parcels:
        await one.settled.wait()


@pytest.mark.parametrize("concurrency", [1, 2, 10])
@pytest.mark.parametrize("seconds", [0.0, 0.5, 5.0])
@pytest.mark.parametrize(
    "tables",
    [{}, {"kill_switch": {}}, {"concurrency": 1}, {"timeout": 0.25}],
    ids=["plain", "kill-switch", "narrow", "cut"],
)
async def test_a_handler_sees_the_context_of_its_own_delivery(
    tables: dict[str, Any], seconds: float, concurrency: int, autojump_clock: MockClock
) -> None:
    seen: list[tuple[int, str]] = []

    async def worker(number: int) -> None:
        seen.append((number, TRACE.get()))
        TRACE.set("left behind")
        await trio.sleep(seconds)

    parcels = [traced(number) for number in range(6)]
    async with running({"w": worker}, {"w": tables}, concurrency=concurrency) as (feed, _):
        await settle_all(feed, *parcels)

    assert sorted(seen) == [(number, f"trace-{number}") for number in range(6)]


async def test_each_worker_of_a_fan_out_sees_it(autojump_clock: MockClock) -> None:
    seen: list[tuple[str, int, str]] = []

    def worker(name: str) -> Any:
        async def handle(number: int) -> None:
            seen.append((name, number, TRACE.get()))
            TRACE.set(f"left behind by {name}")
            await trio.sleep(1)

        return handle

    parcels = [traced(number) for number in range(3)]
    async with running({"a": worker("a"), "b": worker("b")}, fan_out=True, concurrency=1) as (feed, _):
        await settle_all(feed, *parcels)

    assert sorted(seen) == [(name, number, f"trace-{number}") for name in "ab" for number in range(3)]


async def test_a_batch_sees_that_of_its_first_delivery(autojump_clock: MockClock) -> None:
    seen: list[tuple[list[int], str]] = []

    class Worker:
        @handles("a.b")
        async def handle(self, numbers: list[int]) -> None:
            seen.append((numbers, TRACE.get()))
            assert current_delivery() is None
            TRACE.set("left behind")

    parcels = [traced(number) for number in range(6)]
    async with running({"w": Worker}, batch={"size": 2, "wait": 1.0}) as (feed, _):
        await settle_all(feed, *parcels)

    assert seen == [([0, 1], "trace-0"), ([2, 3], "trace-2"), ([4, 5], "trace-4")]


async def test_what_is_cut_or_fails_leaves_nothing_either(autojump_clock: MockClock) -> None:
    seen: list[str] = []

    async def worker(number: int) -> None:
        seen.append(TRACE.get())
        TRACE.set("left behind")
        raise ValueError(number)

    parcels = [traced(number) for number in range(4)]
    async with running({"w": worker}, concurrency=1) as (feed, _):
        await settle_all(feed, *parcels)

    assert seen == [f"trace-{number}" for number in range(4)]
    assert all(isinstance(one.outcomes[0], Retry) for one in parcels)
