"""A worker that is gone for good is no failure of the messages that are for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kernel import Ack, ComponentFailed, DeadLetter, DeliverySettled, Retry, Return, State, handles
from kernel.errors import DependencyError, RestartLimitError

from ._feed import Feed, Parcel, parcel, running


class Failing:
    """Fails for good after a second."""

    async def run(self) -> None:
        await trio.sleep(1)
        raise OSError("broken")

    @handles("a.*")
    async def handle(self, payload: Any) -> str:
        await trio.sleep(0.1)
        return "done"


class Ending(Failing):
    """Is done after a second."""

    async def run(self) -> None:
        await trio.sleep(1)


class Batched(Failing):
    @handles("a.*")
    async def handle(self, payload: list[Any]) -> None:  # type: ignore[override]
        await trio.sleep(0.1)


class Other:
    """Goes on."""

    @handles("b.*")
    async def handle(self, payload: Any) -> str:
        await trio.sleep(0.1)
        return "done"


class Both(Other):
    @handles("a.*", "b.*")
    async def handle(self, payload: Any) -> str:
        return "done"


async def last(failure: object) -> None:
    await trio.lowlevel.checkpoint()


FAILS: Mapping[str, Any] = {"essential": False, "restart": {"max_restarts": 0}}
ENDS: Mapping[str, Any] = {"restart": {"policy": "on_failure"}}
GONE: Mapping[str, tuple[Any, Mapping[str, Any], Mapping[str, Any]]] = {
    "failed": (Failing, FAILS, {}),
    "ended": (Ending, ENDS, {}),
    "never": (Failing, {"essential": False, "restart": {"policy": "never"}}, {}),
    "several-instances": (Failing, {**FAILS, "instances": 3}, {}),
    "kill-switch": (Failing, {**FAILS, "kill_switch": {}}, {}),
    "failure-worker": (Failing, {**FAILS, "failure_worker": "last"}, {}),
    "batch": (Batched, FAILS, {"batch": {"size": 2, "wait": 0.1}}),
    "fan-out": (Failing, FAILS, {"fan_out": True}),
    "rate": (Failing, FAILS, {"rate": {"messages": 1, "per": 0.1}}),
}
"""Why it is gone, with what else its tables say."""


async def send(feed: Feed, *parcels: Parcel) -> None:
    for one in parcels:
        feed.send.send_nowait(one)
    await trio.sleep(100)


def states(service: Any) -> tuple[State, bool]:
    return service.kernel.states["dispatcher/feed"], service.kernel.is_ready


def tables_of(way: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    worker, table, dispatcher = GONE[way]
    workers, tables = {"w": worker}, {"w": dict(table)}
    if "failure_worker" in table:
        workers["last"], tables["last"] = last, {"dispatcher": ""}
    return workers, tables, dict(dispatcher)


@pytest.mark.parametrize("essential", [True, False])
@pytest.mark.parametrize("way", GONE)
async def test_without_workers_a_dispatcher_accepts_nothing_more(
    way: str, essential: bool, autojump_clock: MockClock
) -> None:
    workers, tables, dispatcher = tables_of(way)
    early, late = parcel(1), [parcel(number) for number in range(20)]
    async with running(workers, tables, essential=essential, **dispatcher) as (feed, service):
        await feed.settle(early)
        await trio.sleep(5)
        await send(feed, *late)
        state, is_ready = states(service)
        result = await service.stop()

    failed = [event.error for event in service.events if isinstance(event, ComponentFailed)]
    [error] = [error for error in failed if isinstance(error, DependencyError)]
    assert (error.component, error.dependency) == ("dispatcher/feed", "worker/w")
    assert early.outcomes == [Ack()]
    assert not any(one.outcomes for one in late)
    assert state is State.FAILED
    assert not is_ready  # without an essential dispatcher, nothing is left to run
    assert [type(one) for one in result.errors] == [DependencyError] * essential
    assert len([event for event in service.events if isinstance(event, DeliverySettled)]) == 1


@pytest.mark.parametrize("way", GONE)
async def test_the_other_workers_go_on_and_nothing_is_counted(way: str, autojump_clock: MockClock) -> None:
    workers, tables, dispatcher = tables_of(way)
    if "batch" in dispatcher:

        class BatchedOther:
            @handles("b.*")
            async def handle(self, payloads: list[Any]) -> None: ...

        workers["other"] = BatchedOther
    else:
        workers["other"] = Other
    held = [parcel(number) for number in range(9)]
    async with running(workers, tables, concurrency=11, **dispatcher) as (feed, service):
        await trio.sleep(5)
        await send(feed, *held)

        assert states(service) == (State.READY, True)
        assert not any(one.outcomes for one in held)
        assert await feed.settle(parcel(1, subject="b.b")) == Ack()
        expires = parcel(1, deadline=trio.current_time() + 3)
        assert await feed.settle(expires) == (
            Ack() if "failure_worker" in tables["w"] else DeadLetter("expired: its deadline had passed")
        )

    assert [one.outcomes for one in held] == [[Return()]] * 9


@pytest.mark.parametrize("way", GONE)
async def test_who_asks_a_worker_that_is_gone_is_told(way: str, autojump_clock: MockClock) -> None:
    workers, tables, dispatcher = tables_of(way)
    if "batch" in dispatcher:

        class BatchedOther:
            @handles("b.*")
            async def handle(self, payloads: list[Any]) -> None: ...

        workers["other"] = BatchedOther
    else:
        workers["other"] = Other
    async with running(workers, tables, concurrency=2, **dispatcher) as (feed, _):
        await trio.sleep(5)
        answers = [await feed.settle(parcel(number, reply_to="answers", attempt=3)) for number in range(5)]

    for answer in answers:
        assert isinstance(answer, Ack)
        assert answer.reply is not None
        assert answer.reply.body.startswith(b"UnavailableError: worker/w is not running: ")


async def test_when_every_slot_is_held_for_a_worker_that_is_gone_nothing_more_is_accepted(
    autojump_clock: MockClock,
) -> None:
    """Nothing could go on any more, and nobody would notice."""
    held = [parcel(number) for number in range(3)]
    async with running({"w": Failing, "other": Other}, {"w": FAILS}, concurrency=2) as (feed, service):
        await trio.sleep(5)
        await send(feed, *held)
        state, _ = states(service)
        result = await service.stop()

    assert state is State.FAILED
    assert [one.outcomes for one in held] == [[Return()]] * 3
    [error] = result.errors
    assert isinstance(error, DependencyError)
    assert error.dependency == "worker/w"


async def test_a_fan_out_holds_what_one_of_its_workers_cannot_get(autojump_clock: MockClock) -> None:
    held = [parcel(number) for number in range(3)]
    async with running({"w": Failing, "both": Both}, {"w": FAILS}, concurrency=4, fan_out=True) as (feed, service):
        await trio.sleep(5)
        await send(feed, *held)

        assert states(service) == (State.READY, True)
        assert await feed.settle(parcel(1, subject="b.b")) == Ack()

    assert [one.outcomes for one in held] == [[Return()]] * 3


async def test_what_waits_when_its_worker_goes_is_held(autojump_clock: MockClock) -> None:
    class Slow(Failing):
        @handles("a.*")
        async def handle(self, payload: Any) -> None:  # type: ignore[override]
            await trio.sleep(50)

    parcels = [parcel(number) for number in range(3)]
    table = {**FAILS, "concurrency": 1}
    async with running({"w": Slow, "other": Other}, {"w": table}, concurrency=4) as (feed, service):
        await send(feed, *parcels)

        assert states(service) == (State.READY, True)
        assert await feed.settle(parcel(1, subject="b.b")) == Ack()

    assert [one.outcomes for one in parcels] == [[Return()]] * 3


async def test_an_essential_worker_that_fails_is_the_only_one_to_be_named(autojump_clock: MockClock) -> None:
    async with running({"w": Failing}, {"w": {"restart": {"max_restarts": 0}}}) as (_, service):
        await trio.sleep(5)
        result = await service.stop()

    assert [type(error) for error in result.errors] == [RestartLimitError]


async def test_a_failure_worker_that_is_gone_leaves_dead_letters(autojump_clock: MockClock) -> None:
    class Gone:
        async def run(self) -> None:
            raise OSError("broken")

        @handles("#")
        async def handle(self, failure: object) -> None: ...

    async def worker(_: object) -> None:
        raise ValueError("bad")

    workers = {"w": worker, "last": Gone}
    tables = {"w": {"failure_worker": "last", "retry": {"attempts": 1}}, "last": {"dispatcher": "", **FAILS}}
    async with running(workers, tables) as (feed, _):
        await trio.sleep(5)
        outcome = await feed.settle(parcel(1))

    assert outcome == DeadLetter("ValueError: bad (attempt 1 of 1)")


async def test_a_worker_that_only_restarts_keeps_its_dispatcher(autojump_clock: MockClock) -> None:
    async with running({"w": Failing}, {"w": {"restart": {"backoff_initial": 5.0, "jitter": 0.0}}}) as (feed, service):
        await trio.sleep(2)
        outcome = await feed.settle(parcel(1))

        assert trio.current_time() == pytest.approx(6.1)
        assert states(service)[0] is State.READY

    assert outcome == Ack()
    assert not isinstance(outcome, Retry)
