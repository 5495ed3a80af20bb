"""Deliveries that are revoked: their handlers end, they are acknowledged, and the others go on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock
from typing_extensions import override

from kernel import Ack, Batch, ComponentFailed, DeliveryRevoked, DeliverySettled, Return
from kernel._manifest.registry import Registry
from kernel.abc import Context, Delivery, Dispatcher, Intake, NoConfig
from kernel.testing import open_kernel

from ._feed import Json, Parcel, parcel


class Feed:
    """A source whose deliveries can be revoked by their correlation id."""

    def __init__(self) -> None:
        self.send, receive = trio.open_memory_channel[Delivery](100)
        self.intakes: list[Intake] = []
        feed = self

        @attrs.define(eq=False)
        class FeedDispatcher(Dispatcher):
            speaks = True
            config: NoConfig
            context: Context

            @override
            @asynccontextmanager
            async def open(self) -> AsyncGenerator[None]:
                await trio.lowlevel.checkpoint()
                yield

            @override
            async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
                feed.intakes.append(intake)
                task_status.started()
                async for delivery in receive:
                    await intake.submit(delivery, revocable_as=delivery.envelope.correlation_id)

        self.dispatcher = FeedDispatcher

    def put(self, name: str, **fields: Any) -> Parcel:
        one = parcel(name, correlation_id=name, **fields)
        self.send.send_nowait(one)
        return one

    def revoke(self, name: str) -> bool:
        return self.intakes[-1].revoke(name)


@asynccontextmanager
async def running(
    worker: Any, *, table: dict[str, object] | None = None, expected: Any = (), **dispatcher: object
) -> AsyncGenerator[tuple[Feed, Any]]:
    feed = Feed()
    registry = Registry.of({
        "dispatchers": {"feed": feed.dispatcher},
        "protocols": {"plain": Json},
        "workers": {"worker": worker},
    })
    manifest: dict[str, Any] = {
        "kernel": {"name": "test"},
        "dispatchers": {"feed": {"protocol": "plain", **dispatcher}},
        "workers": {"worker": {"use": "worker", "dispatcher": "feed", **(table or {})}},
    }
    async with open_kernel(manifest, registry=registry, expected=expected) as service:
        yield feed, service


def revoked(service: Any) -> list[tuple[str, str, str]]:
    found = [event for event in service.events if isinstance(event, DeliveryRevoked)]
    return [(event.component, event.delivery_id, event.subject) for event in found]


class Sleeper:
    """A worker that sleeps, and remembers who began, who was cancelled and who came to an end."""

    def __init__(self, seconds: float = 5.0) -> None:
        self.seconds = seconds
        self.log: list[str] = []

    @property
    def worker(self) -> Any:
        async def worker(payload: str) -> str:
            self.log.append(f"{payload} began")
            try:
                await trio.sleep(self.seconds)
            except trio.Cancelled:
                self.log.append(f"{payload} cancelled")
                raise
            self.log.append(f"{payload} done")
            return "done"

        return worker


async def test_a_revoked_handler_is_cancelled_and_acknowledged_without_a_reply(autojump_clock: MockClock) -> None:
    sleeper = Sleeper()
    async with running(sleeper.worker) as (feed, service):
        one, other = feed.put("one", reply_to="answers"), feed.put("other")
        await trio.sleep(1)
        began = trio.current_time()
        assert feed.revoke("one")
        await one.settled.wait()
        waited = trio.current_time() - began
        await other.settled.wait()
        [first, _second] = [event for event in service.events if isinstance(event, DeliverySettled)]

    assert waited < 0.1
    assert (one.outcomes, other.outcomes) == ([Ack()], [Ack()])
    assert sleeper.log == ["one began", "other began", "one cancelled", "other done"]
    assert revoked(service) == [("dispatcher/feed", one.envelope.id, "a.b")]
    assert (first.delivery_id, first.outcome, first.error) == (one.envelope.id, Ack(), None)


async def test_the_deadline_of_the_delivery_before_ends_no_handler_that_can_be_revoked(
    autojump_clock: MockClock,
) -> None:
    sleeper = Sleeper(seconds=6.0)
    async with running(sleeper.worker, table={"timeout": 10.0}, concurrency=1) as (feed, _):
        before, after = parcel("before"), feed.put("after")
        feed.send.send_nowait(before)
        await after.settled.wait()
        await before.settled.wait()
        last = feed.put("last")
        await last.settled.wait()

    assert trio.current_time() == pytest.approx(18)
    assert sleeper.log == [f"{name} {what}" for name in ("after", "before", "last") for what in ("began", "done")]


async def test_a_name_that_nothing_has_revokes_nothing(autojump_clock: MockClock) -> None:
    async with running(Sleeper().worker) as (feed, service):
        one = feed.put("one")
        await trio.sleep(1)
        assert not feed.revoke("other")
        await one.settled.wait()
        assert not feed.revoke("one")

    assert revoked(service) == []


async def test_what_waits_for_its_slot_is_revoked_without_a_call(autojump_clock: MockClock) -> None:
    sleeper = Sleeper()
    async with running(sleeper.worker, concurrency=1) as (feed, service):
        feed.put("one")
        other = feed.put("other")
        await trio.sleep(1)
        assert feed.revoke("other")
        await other.settled.wait()

    assert other.outcomes == [Ack()]
    assert sleeper.log == ["one began", "one done"]
    assert revoked(service) == [("dispatcher/feed", other.envelope.id, "a.b")]


@pytest.mark.parametrize("of_dispatcher", [True, False], ids=["slots for all", "a slot less"])
async def test_what_is_revoked_as_its_place_becomes_free_is_not_called(
    of_dispatcher: bool, autojump_clock: MockClock
) -> None:
    """In one turn, in either order, which trio draws; who waits behind it is called instead."""
    sleeper = Sleeper(1.0)
    async with running(sleeper.worker, table={"concurrency": 1}, concurrency=3 - (not of_dispatcher)) as (
        feed,
        _service,
    ):
        for number in range(30):
            names = [f"{place}{number}" for place in ("one", "other", "third")]
            one, other, third = (feed.put(name) for name in names)
            await trio.sleep(0.5)
            await trio.sleep(0.5)  # as long as the first one sleeps
            feed.revoke(names[1])
            for parcel_ in (one, other, third):
                await parcel_.settled.wait()

    assert [line for line in sleeper.log if line.startswith("other")] == []
    assert sleeper.log.count("third29 done") == 1


async def test_what_is_revoked_as_a_kill_switch_lets_it_in_is_not_called(autojump_clock: MockClock) -> None:
    """As the call that tries the worker ends; which of them that is, trio draws."""
    calls: list[str] = []

    async def worker(payload: str) -> None:
        calls.append(payload)
        await trio.sleep(0.5)
        if payload.startswith("bad"):
            raise ValueError(payload)

    switch = {"failure_rate": 0.5, "minimum": 1, "window": 10.0, "pause": 1.0}
    table = {"kill_switch": switch, "retry": {"attempts": 1}, "concurrency": 4}
    async with running(worker, table=table, concurrency=4, expected=ValueError) as (feed, _service):
        for number in range(30):
            await feed.put(f"bad{number}").settled.wait()
            paused = trio.current_time()
            waiting = [feed.put(f"{name}{number}") for name in ("first", "other", "last")]
            await trio.sleep_until(paused + 1.0 + 0.5)
            feed.revoke(f"other{number}")
            calls.append(f"revoked other{number}")
            for one in waiting:
                await one.settled.wait()

    begun = {call: at for at, call in enumerate(calls)}
    assert [call for call, at in begun.items() if at > begun.get(f"revoked {call}", len(calls))] == []
    assert {"first29", "last29"} <= begun.keys()


async def test_what_goes_back_because_accepting_stops_is_forgotten(autojump_clock: MockClock) -> None:
    sleeper = Sleeper()
    async with running(sleeper.worker, concurrency=1) as (feed, service):
        one, other = feed.put("one"), feed.put("other")
        await trio.sleep(1)
        service.kernel.request_stop("test")
        await trio.sleep(1)
        assert not feed.revoke("other")
        assert feed.revoke("one")
        await one.settled.wait()

    assert (one.outcomes, other.outcomes) == ([Ack()], [Return()])
    assert revoked(service) == [("dispatcher/feed", one.envelope.id, "a.b")]


async def test_what_was_delivered_twice_is_revoked_twice(autojump_clock: MockClock) -> None:
    sleeper = Sleeper()
    async with running(sleeper.worker) as (feed, service):
        twice = [feed.put("one"), feed.put("one")]
        await trio.sleep(1)
        assert feed.revoke("one")
        for one in twice:
            await one.settled.wait()

    assert sleeper.log == ["one began"] * 2 + ["one cancelled"] * 2
    assert len(revoked(service)) == 2


async def test_a_revoked_handler_that_raises_is_acknowledged_all_the_same(autojump_clock: MockClock) -> None:
    async def worker(payload: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("no way to clean up")

    async with running(worker) as (feed, service):
        one = feed.put("one")
        await trio.sleep(1)
        feed.revoke("one")
        await one.settled.wait()
        [event] = [event for event in service.events if isinstance(event, DeliveryRevoked)]

    assert one.outcomes == [Ack()]
    assert isinstance(event.error, LookupError)


async def test_a_revoked_handler_whose_tasks_fail_costs_the_others_nothing(autojump_clock: MockClock) -> None:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("no way to clean up")

    async def worker(payload: str) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep(5)
            nursery.cancel_scope.shield = True

    async with running(worker) as (feed, service):
        one = feed.put("one")
        await trio.sleep(1)
        feed.revoke("one")
        await one.settled.wait()
        [event] = [event for event in service.events if isinstance(event, DeliveryRevoked)]
        states = service.kernel.states["dispatcher/feed"]

    assert one.outcomes == [Ack()]
    assert isinstance(event.error, ExceptionGroup)
    assert states.value == "ready"


async def test_a_revoked_handler_that_ends_all_the_same_is_not_answered(autojump_clock: MockClock) -> None:
    async def worker(payload: str) -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        return "done"

    async with running(worker) as (feed, _service):
        one = feed.put("one", reply_to="answers")
        await trio.sleep(1)
        feed.revoke("one")
        await one.settled.wait()

    assert one.outcomes == [Ack()]
    assert trio.current_time() >= 5


async def test_what_was_revoked_is_not_returned_by_a_cut(autojump_clock: MockClock) -> None:
    async def worker(payload: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(60, shield=True) as scope:
                cleaning.append(scope)
                await trio.sleep(20)

    cleaning: list[trio.CancelScope] = []
    async with running(worker) as (feed, service):
        one = feed.put("one")
        await trio.sleep(1)
        feed.revoke("one")
        await trio.sleep(1)
        service.kernel.request_stop("test")
        await trio.sleep(16)
        assert cleaning
        await one.settled.wait()

    assert one.outcomes == [Ack()]


async def test_an_error_of_the_pipeline_itself_is_not_taken_for_the_end_of_a_revoked_handler(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def worker(payload: str) -> None: ...

    async def broken(_self: object, _delivery: Delivery) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    monkeypatch.setattr("kernel._delivery.pipeline.Pipeline.attempt", broken)
    async with running(worker) as (feed, service):
        one = feed.put("one")
        await one.settled.wait()
        await trio.sleep(0.01)
        [failed] = [event.error for event in service.events if isinstance(event, ComponentFailed)]

    assert "ZeroDivisionError" in repr(failed)
    assert one.outcomes == [Return()]


async def test_what_is_revoked_before_its_batch_is_called_is_not_in_it(autojump_clock: MockClock) -> None:
    batches: list[list[str]] = []

    async def worker(payloads: list[str]) -> None:
        batches.append(payloads)

    async with running(worker, batch={"size": 5, "wait": 10.0}) as (feed, _service):
        parcels = [feed.put(name) for name in "abc"]
        await trio.sleep(1)
        feed.revoke("b")
        for one in parcels:
            await one.settled.wait()

    assert batches == [["a", "c"]]
    assert [one.outcomes for one in parcels] == [[Ack()]] * 3


async def test_a_batch_of_which_all_are_revoked_is_not_called(autojump_clock: MockClock) -> None:
    batches: list[list[str]] = []

    async def worker(payloads: list[str]) -> None:
        batches.append(payloads)

    async with running(worker, batch={"size": 5, "wait": 10.0}) as (feed, _service):
        one = feed.put("a")
        await trio.sleep(1)
        feed.revoke("a")
        await one.settled.wait()
        await trio.sleep(20)

    assert batches == []


async def test_what_is_revoked_while_its_batch_is_handled_costs_the_batch_nothing(autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def worker(payloads: list[str], batch: Batch) -> None:
        await trio.sleep(5)
        for index in range(len(payloads)):
            batch.settle(index, None)
        ended.append(trio.current_time())

    async with running(worker, batch={"size": 2, "wait": 10.0}) as (feed, service):
        one, other = feed.put("a"), feed.put("b")
        await trio.sleep(1)
        feed.revoke("a")
        await one.settled.wait()
        early = trio.current_time()
        await other.settled.wait()

    assert early < 2 < ended[0]
    assert (one.outcomes, other.outcomes) == ([Ack()], [Ack()])
    assert len(revoked(service)) == 1
