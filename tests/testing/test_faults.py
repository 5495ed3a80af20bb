"""The tools of `kernel.testing` that are no checks: faults, cancellation, context and intake."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Self

import attrs
import pytest
import trio
from typing_extensions import override

from kernel import Ack, Envelope, Return
from kernel.abc import Broker, Delivery, Subscription, Topology
from kernel.testing import (
    Faults,
    cancel_at_checkpoint,
    cancel_at_each_checkpoint,
    fake_context,
    faulty,
    open_intake,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from trio.testing import MockClock

    from kernel import Event, Outcome


@attrs.define(eq=False)
class Store(Broker):
    sent: list[str] = attrs.field(factory=list)
    size: int = 3

    @override
    async def declare(self, topology: Topology) -> None:
        await trio.lowlevel.checkpoint()

    @override
    @asynccontextmanager
    async def subscribe(self, subscription: Subscription) -> AsyncGenerator[AsyncIterator[Delivery]]:
        yield aiter(Deliveries())

    @override
    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(envelope.subject)

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(self, *_: object) -> None:
        await trio.lowlevel.checkpoint()

    def __len__(self) -> int:
        return self.size


class Deliveries:
    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        await trio.lowlevel.checkpoint()
        raise StopAsyncIteration


@attrs.define(eq=False)
class Parcel(Delivery):
    envelope: Envelope = attrs.field(factory=lambda: Envelope(subject="a"))
    attempt: int = 1
    redelivered: bool = False
    outcome: Outcome | None = None

    @override
    async def settle(self, outcome: Outcome) -> None:
        await trio.lowlevel.checkpoint()
        self.outcome = outcome


async def send(broker: Broker, subject: str) -> None:
    await broker.send(Envelope(subject=subject), exchange="")


async def test_only_the_named_call_fails() -> None:
    faults, store = Faults(), Store()
    faults.fail("driver/queue", "send", at=2, error=OSError("gone"))
    broker = faulty(store, faults, "driver/queue")

    await send(broker, "one")
    with pytest.raises(OSError, match="gone"):
        await send(broker, "two")
    await send(broker, "three")

    assert store.sent == ["one", "three"]
    assert faults.count("driver/queue", "send") == 3


async def test_a_lost_answer_raises_after_the_call_was_made() -> None:
    faults, store = Faults(), Store()
    faults.lose("driver/queue", "send", error=OSError("no answer"))

    with pytest.raises(OSError, match="no answer"):
        await send(faulty(store, faults, "driver/queue"), "one")

    assert store.sent == ["one"]


async def test_a_stalled_call_goes_on_when_released() -> None:
    faults, store = Faults(), Store()
    stall = faults.stall("driver/queue", "send")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, faulty(store, faults, "driver/queue"), "one")
        await stall.reached.wait()
        before = list(store.sent)
        stall.release.set()

    assert before == []
    assert store.sent == ["one"]


async def test_a_scope_is_cancelled_at_the_named_call() -> None:
    faults, store, scope = Faults(), Store(), trio.CancelScope()
    faults.cancel("driver/queue", "send", at=2, scope=scope)
    broker = faulty(store, faults, "driver/queue")

    with scope:
        await send(broker, "one")
        await send(broker, "two")

    assert scope.cancelled_caught
    assert store.sent == ["one"]


async def test_a_fault_strikes_on_entry_of_a_context_manager() -> None:
    faults = Faults()
    faults.fail("driver/queue", "subscribe", error=OSError("gone"))
    subscription = faulty(Store(), faults, "driver/queue").subscribe(Subscription(queue="q", prefetch=1))

    with pytest.raises(OSError, match="gone"):
        async with subscription:
            pass


async def test_a_stand_in_is_taken_for_the_resource() -> None:
    faults, store = Faults(), Store()
    broker = faulty(store, faults, "driver/queue")

    async with broker as entered:
        broker.size = 5

    assert isinstance(broker, Broker)
    assert isinstance(broker, Store)
    assert entered is store
    assert len(broker) == store.size == 5
    assert faults.count("driver/queue", "__aenter__") == 1
    assert faults.count("driver/queue", "send") == 0


def test_what_is_not_asynchronous_cannot_be_stalled() -> None:
    faults = Faults()
    faults.stall("driver/queue", "__len__")

    with pytest.raises(TypeError, match="not asynchronous"):
        len(faulty(Store(), faults, "driver/queue"))


def test_calls_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        Faults().fail("driver/queue", "send", at=0, error=OSError())


async def test_each_checkpoint_is_cancelled_once(autojump_clock: MockClock) -> None:
    runs: list[str] = []

    async def operation() -> None:
        runs.append("")
        await trio.lowlevel.checkpoint()
        runs[-1] += "a"
        await trio.sleep(60)
        runs[-1] += "b"

    checkpoints = await cancel_at_each_checkpoint(operation)

    assert checkpoints == 2
    assert runs == ["", "a", "ab"]


async def test_checkpoints_of_started_tasks_count(autojump_clock: MockClock) -> None:
    reached: list[int] = []

    async def connect(*, task_status: trio.TaskStatus[None]) -> None:
        for step in range(3):
            reached.append(step)
            await trio.sleep(1)
        task_status.started()

    async def operation() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(connect)

    await cancel_at_each_checkpoint(operation)

    assert reached.count(0) > reached.count(1) > reached.count(2) > 1


async def test_checkpoints_of_other_tasks_do_not_count(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tick)
        checkpoints = await cancel_at_each_checkpoint(partial(trio.sleep, 10))
        nursery.cancel_scope.cancel()

    assert checkpoints == 1


async def _tick() -> None:
    for _ in range(1000):
        await trio.sleep(0.1)


async def test_a_failure_says_where_it_was_cancelled() -> None:
    async def operation() -> None:
        try:
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            raise RuntimeError("cleanup failed") from None

    with pytest.raises(RuntimeError, match="cleanup failed") as raised:
        await cancel_at_checkpoint(operation, 2)

    assert raised.value.__notes__ == ["cancelled at checkpoint 2"]


def test_a_fake_context_records_what_is_reported() -> None:
    events: list[Event] = []
    context = fake_context("driver/queue", events=events)

    context.report_degraded("connection lost")
    context.report_ready()
    context.log.critical("nobody hears this", count=1)

    assert context.name == "queue"
    assert [str(getattr(event, "reason", "")) for event in events] == ["connection lost", ""]


async def test_an_intake_makes_the_source_wait(autojump_clock: MockClock) -> None:
    release = trio.Event()

    async def answer(_: Delivery) -> Outcome:
        await release.wait()
        return Ack()

    async with open_intake(concurrency=1, answer=answer) as intake, trio.open_nursery() as nursery:
        nursery.start_soon(intake.submit, Parcel())
        nursery.start_soon(intake.submit, Parcel())
        await trio.sleep(1)
        waiting, in_flight = intake.waiting, intake.in_flight
        release.set()

    assert (waiting, in_flight) == (1, 1)
    assert [settled.outcome for settled in intake.settled] == [Ack(), Ack()]


async def test_an_intake_returns_what_is_cut() -> None:
    parcel = Parcel()

    async def answer(_: Delivery) -> Outcome:
        await trio.sleep_forever()
        raise AssertionError

    async with open_intake(answer=answer) as intake:
        await intake.submit(parcel)
        intake.cut()

    assert parcel.outcome == Return()


async def test_an_intake_returns_what_it_had_no_slot_for(autojump_clock: MockClock) -> None:
    refused = Parcel()

    async with open_intake() as intake, intake.slot("busy"):
        with trio.move_on_after(1):
            await intake.handle(refused)

    assert refused.outcome == Return()
    assert intake.arrivals == 2


async def test_a_handled_delivery_goes_on_without_its_caller(autojump_clock: MockClock) -> None:
    parcel = Parcel()

    async def answer(_: Delivery) -> Outcome:
        await trio.sleep(2)
        return Ack()

    async with open_intake(answer=answer) as intake:
        with trio.move_on_after(1):
            await intake.handle(parcel)
        early = parcel.outcome

    assert early is None
    assert parcel.outcome == Ack()
