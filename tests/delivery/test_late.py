"""A delivery waits for its worker until its deadline, and is not started after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kernel import Ack, DeadLetter, handles
from kernel.errors import PermanentError

from ._feed import parcel, running

EXPIRED = DeadLetter("expired: its deadline had passed")
NARROW: Mapping[str, Any] = {"concurrency": 1}
WAYS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "plain": (NARROW, {}),
    "kill-switch": ({**NARROW, "kill_switch": {}}, {}),
    "failure-worker": ({**NARROW, "failure_worker": "last"}, {}),
    "fan-out": (NARROW, {"fan_out": True}),
    "rate": ({}, {"rate": {"messages": 1, "per": 20.0}}),
    "batch": (NARROW, {"batch": {"size": 1}}),
    "collecting": ({}, {"batch": {"size": 10, "wait": 60.0}}),
}


async def last(failure: object) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("asks", [False, True])
async def test_what_waits_for_a_place_ends_at_its_deadline(asks: bool, way: str, autojump_clock: MockClock) -> None:
    began: list[int] = []
    table, dispatcher = WAYS[way]

    class Worker:
        @handles("a.b")
        async def handle(self, number: int) -> None:
            began.append(number)
            await trio.sleep(10)

    class Batched:
        @handles("a.b")
        async def handle(self, numbers: list[int]) -> None:
            began.extend(numbers)
            await trio.sleep(10)

    workers: dict[str, Any] = {"w": Batched if "batch" in dispatcher else Worker}
    tables: dict[str, Any] = {"w": table}
    if "failure_worker" in table:
        workers["last"], tables["last"] = last, {"dispatcher": ""}
    async with running(workers, tables, **dispatcher) as (feed, _):
        feed.send.send_nowait(parcel(1))
        late = parcel(2, deadline=trio.current_time() + 3, reply_to="answers" if asks else "")
        outcome = await feed.settle(late)
        ended = trio.current_time()

    assert ended == pytest.approx(3)
    assert 2 not in began
    if asks:
        assert isinstance(outcome, Ack)
        assert outcome.reply is not None
        assert outcome.reply.body == b"TimeoutError: expired: its deadline had passed"
    else:
        assert outcome == (Ack() if "failure_worker" in table else EXPIRED)


async def test_what_waits_for_a_worker_in_backoff_ends_at_its_deadline(autojump_clock: MockClock) -> None:
    began: list[int] = []

    class Worker:
        async def run(self) -> None:
            await trio.sleep(1)
            raise OSError

        @handles("a.b")
        async def handle(self, number: int) -> None:
            began.append(number)

    restart = {"backoff_initial": 30.0, "jitter": 0.0}
    async with running({"w": Worker}, {"w": {"restart": restart}}) as (feed, _):
        await trio.sleep(2)
        outcome = await feed.settle(parcel(1, deadline=trio.current_time() + 3))

        assert (outcome, trio.current_time()) == (EXPIRED, pytest.approx(5))
        assert await feed.settle(parcel(2, deadline=trio.current_time() + 300)) == Ack()

    assert began == [2]


async def test_what_waits_for_a_paused_worker_ends_at_its_deadline(autojump_clock: MockClock) -> None:
    began: list[int] = []

    async def worker(number: int) -> None:
        began.append(number)
        raise PermanentError("ill")

    async with running({"w": worker}, {"w": {"kill_switch": {"minimum": 1, "pause": 60.0}}}) as (feed, _):
        await feed.settle(parcel(1))
        outcome = await feed.settle(parcel(2, deadline=trio.current_time() + 3))

        assert (outcome, trio.current_time()) == (EXPIRED, pytest.approx(3))

    assert began == [1]


async def test_a_place_that_comes_with_the_deadline_is_not_lost(autojump_clock: MockClock) -> None:
    """The place is free in the moment in which the deadline passes; the next one gets it."""
    began: list[int] = []

    async def worker(number: int) -> None:
        began.append(number)
        await trio.sleep(3)

    async with running({"w": worker}, {"w": NARROW}) as (feed, _):
        parcels = [parcel(1), parcel(2, deadline=trio.current_time() + 3), parcel(3), parcel(4)]
        for one in parcels:
            feed.send.send_nowait(one)
        for one in parcels:
            await one.settled.wait()

    assert began == [1, 3, 4]
    assert [one.outcomes for one in parcels] == [[Ack()], [EXPIRED], [Ack()], [Ack()]]


async def test_a_late_item_costs_its_batch_nothing(autojump_clock: MockClock) -> None:
    given: list[list[int]] = []

    class Worker:
        @handles("a.b")
        async def handle(self, numbers: list[int]) -> None:
            given.append(numbers)
            await trio.sleep(1)

    async with running({"w": Worker}, batch={"size": 3, "wait": 60.0}) as (feed, _):
        parcels = [parcel(1), parcel(2, deadline=trio.current_time() + 3), parcel(3)]
        for one in parcels[:2]:
            feed.send.send_nowait(one)
        await parcels[1].settled.wait()
        feed.send.send_nowait(parcels[2])
        for one in parcels:
            await one.settled.wait()

    assert given == [[1, 3]]
