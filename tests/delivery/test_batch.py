"""Batches: many deliveries in one call, each with an end of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from kernel import (
    Ack,
    Batch,
    DeadLetter,
    DeliverySettled,
    DrainTimedOut,
    KillSwitchChanged,
    Outcome,
    Retry,
    Return,
    handles,
)
from kernel._delivery.failure import Failure
from kernel.errors import PermanentError, SettledError
from kernel.testing import check_worker

from ._feed import Parcel, parcel, running

RETRY = {"retry": {"attempts": 3, "backoff_initial": 1.0, "jitter": 0.0}}


def taking(worker: Callable[..., Any], item: object = Any, **others: object) -> Callable[..., Any]:
    """Annotate a local function, whose annotations nobody could resolve."""
    worker.__annotations__.update({"payloads": list[item], **others})  # type: ignore[valid-type]
    return worker


async def outcomes_of(worker: Callable[..., Any], parcels: list[Parcel], **table: object) -> list[Outcome]:
    """Deliver parcels as one batch and return their outcomes."""
    batch = {"size": len(parcels), "wait": 1.0}
    async with running({"worker": worker}, {"worker": {**RETRY, **table}}, batch=batch) as (feed, _):
        for one in parcels:
            feed.send.send_nowait(one)
        for one in parcels:
            await one.settled.wait()
    return [outcome for one in parcels for outcome in one.outcomes]


async def test_a_full_batch_is_handled_at_once_and_one_that_is_not_after_its_wait(autojump_clock: MockClock) -> None:
    calls: list[tuple[float, list[int]]] = []

    async def worker(payloads: Any) -> None:
        calls.append((round(trio.current_time() - begin, 6), payloads))

    batch = {"size": 3, "wait": 2.0}
    async with running({"worker": taking(worker, int)}, batch=batch) as (feed, service):
        begin = trio.current_time()
        for number in range(5):
            feed.send.send_nowait(parcel(number))
        await service.wait_settled(5)

    assert calls == [(0, [0, 1, 2]), (2, [3, 4])]


async def test_the_wait_begins_with_the_first_of_a_batch(autojump_clock: MockClock) -> None:
    calls: list[tuple[float, list[int]]] = []

    async def worker(payloads: Any) -> None:
        calls.append((round(trio.current_time() - begin, 6), payloads))

    async with running({"worker": taking(worker)}, batch={"size": 5, "wait": 2.0}) as (feed, service):
        begin = trio.current_time()
        for number in range(4):
            feed.send.send_nowait(parcel(number))
            await trio.sleep(1.5)
        await service.wait_settled(4)

    assert calls == [(2, [0, 1]), (5, [2, 3])]


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (None, [Ack(), Ack(), Ack()]),
        (Retry(5.0, "busy"), [Retry(5.0, "busy")] * 3),
        ([None, Retry(2.0), DeadLetter("no")], [Ack(), Retry(2.0), DeadLetter("no")]),
        ((Ack(), None, Return()), [Ack(), Ack(), Return()]),
    ],
    ids=["nothing", "one outcome for all", "a list", "a tuple"],
)
async def test_what_the_handler_returns_settles_all_or_one_by_one(
    returned: object, expected: list[Outcome], autojump_clock: MockClock
) -> None:
    async def worker(payloads: Any) -> object:
        return returned

    assert await outcomes_of(taking(worker), [parcel(number) for number in range(3)]) == expected


@pytest.mark.parametrize(
    ("returned", "got"), [([None], "a list of 1"), ("abc", "something else"), (True, "something else")]
)
async def test_what_is_no_result_for_each_is_a_failure(returned: object, got: str, autojump_clock: MockClock) -> None:
    async def worker(payloads: Any) -> object:
        return returned

    outcomes = await outcomes_of(taking(worker), [parcel(1), parcel(2)])

    assert [outcome.reason for outcome in outcomes if isinstance(outcome, Retry)] == [
        f"TypeError: a handler of batches returns None, an outcome, or a list of one result for each of 2: {got}"
    ] * 2


async def test_what_the_handler_raises_fails_each_by_its_own_attempt(autojump_clock: MockClock) -> None:
    async def worker(payloads: Any) -> None:
        raise ValueError("no")

    outcomes = await outcomes_of(taking(worker), [parcel(1, attempt=number) for number in (1, 2, 3)])

    assert outcomes == [
        Retry(1.0, "ValueError: no"),
        Retry(2.0, "ValueError: no"),
        DeadLetter("ValueError: no (attempt 3 of 3)"),
    ]


async def test_an_error_has_one_note_for_the_batch_not_one_for_each_delivery(autojump_clock: MockClock) -> None:
    error = ValueError("no")

    async def worker(payloads: Any) -> None:
        raise error

    await outcomes_of(taking(worker), [parcel(number) for number in range(10)])

    assert error.__notes__ == ["in worker/worker, a batch of 10, 10 not settled"]


async def test_items_that_mean_nothing_are_put_aside_alone(autojump_clock: MockClock) -> None:
    calls: list[object] = []

    @attrs.frozen
    class Order:
        quantity: int

    async def worker(payloads: Any) -> None:
        calls.append(payloads)

    parcels = [parcel({"quantity": 1}), parcel(b"{"), parcel({"quantity": "x"}), parcel({"quantity": 2})]
    outcomes = await outcomes_of(taking(worker, Order), parcels)

    assert calls == [[Order(1), Order(2)]]
    assert [type(outcome) for outcome in outcomes] == [Ack, DeadLetter, DeadLetter, Ack]


async def test_a_handler_may_settle_items_before_it_ends(autojump_clock: MockClock) -> None:
    parcels = [parcel(number, id=str(number)) for number in range(4)]
    seen: list[object] = []

    async def worker(payloads: Any, batch: Batch) -> None:
        seen.extend(delivery.envelope.id for delivery in batch.deliveries)
        batch.settle(1)
        batch.settle(2, DeadLetter("bad"))
        await trio.sleep(1)
        seen.append([len(one.outcomes) for one in parcels])
        with pytest.raises(SettledError):
            batch.settle(1, Retry())
        with pytest.raises(IndexError):
            batch.settle(len(batch))
        raise ValueError("the rest failed")

    outcomes = await outcomes_of(taking(worker, batch=Batch), parcels)

    failed = Retry(1.0, "ValueError: the rest failed")
    assert outcomes == [failed, Ack(), DeadLetter("bad"), failed]
    assert seen == ["0", "1", "2", "3", [0, 1, 1, 0]]


async def test_after_the_handler_has_ended_nothing_can_be_settled(autojump_clock: MockClock) -> None:
    kept: list[Batch] = []

    async def worker(payloads: Any, batch: Batch) -> None:
        kept.append(batch)

    await outcomes_of(taking(worker, batch=Batch), [parcel(1)])

    with pytest.raises(SettledError):
        kept[0].settle(0)


async def test_an_item_that_was_settled_early_frees_its_slot(autojump_clock: MockClock) -> None:
    calls: list[list[int]] = []

    async def worker(payloads: Any, batch: Batch) -> None:
        calls.append(payloads)
        batch.settle(0)
        await trio.sleep(100 if len(calls) == 1 else 0)

    batch = {"size": 2, "wait": 1.0}
    async with running({"worker": taking(worker, batch=Batch)}, concurrency=2, batch=batch) as (feed, _):
        for number in range(2):
            feed.send.send_nowait(parcel(number))
        await feed.settle(parcel(2))

    assert calls == [[0, 1], [2]]


async def test_requests_are_answered_with_their_own_result(autojump_clock: MockClock) -> None:
    async def worker(payloads: Any) -> object:
        return [payload * 10 for payload in payloads]

    outcomes = await outcomes_of(taking(worker), [parcel(number, reply_to="me") for number in (1, 2)])
    replies = [outcome.reply for outcome in outcomes if isinstance(outcome, Ack)]

    assert [reply.body for reply in replies if reply is not None] == [b"10", b"20"]


async def test_requests_of_a_batch_that_fails_are_answered_with_the_error(autojump_clock: MockClock) -> None:
    async def worker(payloads: Any) -> None:
        raise ValueError("no")

    [answered, retried] = await outcomes_of(taking(worker), [parcel(1, reply_to="me"), parcel(2)])

    assert isinstance(answered, Ack)
    assert answered.reply is not None
    assert answered.reply.body == b"ValueError: no"
    assert retried == Retry(1.0, "ValueError: no")


async def test_each_handler_collects_its_own(autojump_clock: MockClock) -> None:
    calls: list[tuple[str, list[int]]] = []

    class Worker:
        @handles("even", "also.even")
        async def even(self, payloads: list[int]) -> None:
            calls.append(("even", payloads))

        @handles("odd")
        async def odd(self, payloads: list[int]) -> None:
            calls.append(("odd", payloads))

    async with running({"worker": Worker}, batch={"size": 2, "wait": 1.0}) as (feed, service):
        for number, subject in enumerate(("even", "odd", "also.even", "odd")):
            feed.send.send_nowait(parcel(number, subject=subject))
        await service.wait_settled(4)

    assert sorted(calls) == [("even", [0, 2]), ("odd", [1, 3])]


async def test_the_timeout_is_for_the_call(autojump_clock: MockClock) -> None:
    async def worker(payloads: Any, batch: Batch) -> None:
        batch.settle(0)
        await trio.sleep_forever()

    outcomes = await outcomes_of(taking(worker, batch=Batch), [parcel(1), parcel(2)], timeout=4.0)

    assert outcomes == [Ack(), Retry(1.0, "TimeoutError: the handler took more than timeout = 4 s")]


async def test_a_deadline_keeps_its_own_item_out_and_cuts_no_other(autojump_clock: MockClock) -> None:
    calls: list[list[int]] = []

    async def worker(payloads: Any) -> None:
        calls.append(payloads)
        await trio.sleep(5)

    now = trio.current_time()
    parcels = [parcel(1, deadline=now + 1), parcel(2, deadline=now + 4), parcel(3)]
    async with running({"worker": taking(worker)}, batch={"size": 5, "wait": 2.0}) as (feed, service):
        for one in parcels:
            feed.send.send_nowait(one)
        await service.wait_settled(3)

    assert calls == [[2, 3]]
    assert [one.outcomes for one in parcels] == [[DeadLetter("expired: its deadline had passed")], [Ack()], [Ack()]]


async def test_a_call_ends_when_nobody_wants_any_of_its_items(autojump_clock: MockClock) -> None:
    async def worker(payloads: Any) -> None:
        await trio.sleep_forever()

    now = trio.current_time()
    outcomes = await outcomes_of(taking(worker), [parcel(1, deadline=now + 3), parcel(2, deadline=now + 7)])

    assert outcomes == [DeadLetter("expired: its deadline had passed")] * 2
    assert trio.current_time() - now == pytest.approx(7)


async def test_a_stop_has_what_is_collected_handled_at_once(autojump_clock: MockClock) -> None:
    calls: list[list[int]] = []

    async def worker(payloads: Any) -> None:
        calls.append(payloads)

    parcels = [parcel(number) for number in range(3)]
    async with running({"worker": taking(worker)}, batch={"size": 10, "wait": 3600.0}) as (feed, _):
        for one in parcels:
            feed.send.send_nowait(one)
        await trio.sleep(1)
        assert calls == []
        begin = trio.current_time()

    assert trio.current_time() - begin < 0.1
    assert calls == [[0, 1, 2]]
    assert [one.outcomes for one in parcels] == [[Ack()]] * 3


async def test_a_batch_that_does_not_end_is_returned_at_the_drain_deadline_and_named(
    autojump_clock: MockClock,
) -> None:
    async def worker(payloads: Any, batch: Batch) -> None:
        batch.settle(0)
        await trio.sleep_forever()

    parcels = [parcel(number, id=f"n{number}") for number in range(3)]
    async with running({"worker": taking(worker, batch=Batch)}, batch={"size": 3, "wait": 1.0}) as (feed, service):
        for one in parcels:
            feed.send.send_nowait(one)
        await trio.sleep(1)
    [cut] = [event for event in service.events if isinstance(event, DrainTimedOut)]

    assert [one.outcomes for one in parcels] == [[Ack()], [Return()], [Return()]]
    assert [re.sub(r":[0-9]+$", "", culprit) for culprit in cut.culprits] == [
        f"delivery n{number} ('a.b') at {__file__}" for number in (1, 2)
    ]


async def test_a_worker_that_crashes_returns_its_batch(autojump_clock: MockClock) -> None:
    class Worker:
        async def run(self) -> None:
            await trio.sleep(1)
            raise OSError("loop broke")

        @handles("#")
        async def handle(self, payloads: list[int]) -> None:
            await trio.sleep_forever()

    assert await outcomes_of(Worker, [parcel(1), parcel(2)]) == [Return(), Return()]


async def test_a_failure_worker_gets_the_items_one_by_one(autojump_clock: MockClock) -> None:
    failures: list[Failure] = []

    async def broken(payloads: Any) -> None:
        raise PermanentError("no")

    async def undertaker(failure: Failure) -> None:
        failures.append(failure)

    undertaker.__annotations__["failure"] = Failure
    tables: dict[str, Any] = {"broken": {"failure_worker": "undertaker"}, "undertaker": {"dispatcher": ""}}
    workers = {"broken": taking(broken), "undertaker": undertaker}
    async with running(workers, tables, batch={"size": 2, "wait": 1.0}) as (feed, service):
        for number in (1, 2):
            feed.send.send_nowait(parcel(number))
        events = await service.wait_settled(2)

    assert sorted(str(failure.payload) for failure in failures) == ["1", "2"]
    assert [event.outcome for event in events if isinstance(event, DeliverySettled)] == [Ack(), Ack()]


async def test_a_batch_is_one_call_to_a_kill_switch_and_waits_as_one(autojump_clock: MockClock) -> None:
    calls: list[float] = []

    async def worker(payloads: Any) -> None:
        calls.append(trio.current_time())
        if len(calls) < 3:
            raise PermanentError("ill")

    table = {"kill_switch": {"minimum": 2, "pause": 30.0}}
    batch = {"size": 2, "wait": 0.5}
    async with running({"worker": taking(worker)}, {"worker": table}, batch=batch) as (feed, service):
        for number in range(4):
            feed.send.send_nowait(parcel(number))
        await service.wait_settled(4)
        begin = trio.current_time()
        expires = parcel(5, deadline=begin + 10)
        feed.send.send_nowait(expires)
        feed.send.send_nowait(parcel(6))
        await service.wait_settled(6)
        states = [event.state.value for event in service.events if isinstance(event, KillSwitchChanged)]
        ill = calls[2] - begin

    assert states == ["open", "half_open", "closed"]
    assert ill == pytest.approx(30)
    assert isinstance(expires.outcomes[0], DeadLetter)


async def test_a_stop_returns_a_batch_that_waits_for_a_paused_worker(autojump_clock: MockClock) -> None:
    async def worker(payloads: Any) -> None:
        raise PermanentError("ill")

    waiting = [parcel(1), parcel(2), parcel(3)]
    table = {"kill_switch": {"minimum": 1, "pause": 30.0}}
    batch = {"size": 2, "wait": 5.0}
    async with running({"worker": taking(worker)}, {"worker": table}, batch=batch) as (feed, _):
        await feed.settle(parcel(0))
        for one in waiting:
            feed.send.send_nowait(one)
        await trio.sleep(1)
        begin = trio.current_time()

    assert trio.current_time() - begin < 0.1
    assert [one.outcomes for one in waiting] == [[Return()]] * 3


async def test_a_list_without_a_batch_is_just_a_payload(autojump_clock: MockClock) -> None:
    seen: list[object] = []

    async def worker(payloads: Any) -> None:
        seen.append(payloads)

    async with running({"worker": taking(worker, int)}) as (feed, _):
        outcome = await feed.settle(parcel([1, 2]))

    assert (outcome, seen) == (Ack(), [[1, 2]])


async def test_a_worker_that_takes_batches_passes_the_conformance_check(autojump_clock: MockClock) -> None:
    class Worker:
        @handles("order")
        async def order(self, payloads: list[int], batch: Batch) -> None:
            for index, _ in enumerate(payloads):
                batch.settle(index)

    await check_worker(Worker, samples={"order": [1, 2]})
