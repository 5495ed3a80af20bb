"""The tools of `kernel.testing` that are no checks: faults, cancellation, context and intake."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
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
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable

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


class Quick(Store):
    """Sends as a transport does that has nothing to wait for: no coroutine function, but what it returns is awaited."""

    @override
    def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> Awaitable[None]:
        return super().send(envelope, exchange=exchange)


class Wordless(Store):
    """Like `Quick`, and only the contract says that `send` is asynchronous."""

    @override
    def send(self, envelope, *, exchange, mandatory=False):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        return Store.send(self, envelope, exchange=exchange)


class Handing(Store):
    """Like `Store`, with methods that are attributes of the object."""

    def __init__(self) -> None:
        super().__init__()
        self.send = partial(Store.send, self)  # type: ignore[method-assign]


class Unsaid(Store):
    """Like `Handing`, and nothing says what the callable returns."""

    def __init__(self) -> None:
        super().__init__()
        self.send = lambda *args, **kwargs: Store.send(self, *args, **kwargs)  # type: ignore[method-assign]


SENDING = pytest.mark.parametrize("store", [Store, Quick, Wordless, Handing, Unsaid])


@SENDING
async def test_whatever_returns_an_awaitable_can_be_stalled(store: type[Store]) -> None:
    faults, inner = Faults(), store()
    stall = faults.stall("driver/queue", "send")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, faulty(inner, faults, "driver/queue"), "one")
        await stall.reached.wait()
        before = list(inner.sent)
        stall.release.set()

    assert (before, inner.sent) == ([], ["one"])


@SENDING
async def test_an_answer_is_lost_after_what_was_returned_has_been_awaited(store: type[Store]) -> None:
    faults, inner = Faults(), store()
    faults.lose("driver/queue", "send", error=OSError("no answer"))

    with pytest.raises(OSError, match="no answer"):
        await send(faulty(inner, faults, "driver/queue"), "one")

    assert inner.sent == ["one"]


class Passing(Store):
    @override
    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return super().subscribe(subscription)


@pytest.mark.parametrize("store", [Store, Passing])
async def test_whatever_is_entered_can_be_stalled(store: type[Store]) -> None:
    faults = Faults()
    stall = faults.stall("driver/queue", "subscribe")
    broker = faulty(store(), faults, "driver/queue")

    async def subscribe() -> None:
        async with broker.subscribe(Subscription(queue="q", prefetch=1)):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscribe)
        await stall.reached.wait()
        stall.release.set()


def test_what_is_not_asynchronous_cannot_be_stalled() -> None:
    early, late = Faults(), Faults()
    early.stall("driver/queue", "__len__")
    faulty(Store(), late, "driver/queue")

    with pytest.raises(ValueError, match="not asynchronous"):
        faulty(Store(), early, "driver/queue")
    with pytest.raises(ValueError, match="not asynchronous"):
        late.stall("driver/queue", "__len__")


# --- scripts that mean nothing, or are not played ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sent", "Send", "sends", "__call__", "_send", ""])
def test_a_method_that_does_not_exist_is_an_error_at_once(method: str) -> None:
    early, late = Faults(), Faults()
    early.fail("driver/queue", method, error=OSError())
    faulty(Store(), late, "driver/queue")

    with pytest.raises(ValueError, match=r"has no method .*; it has: declare, peek, retire, send, subscribe$"):
        faulty(Store(), early, "driver/queue")
    with pytest.raises(ValueError, match=r"has no method .*; it has: declare, peek, retire, send, subscribe$"):
        late.stall("driver/queue", method)


def test_a_name_that_does_not_exist_is_an_error_at_once() -> None:
    early, late = Faults(), Faults()
    early.fail("driver/queu", "send", error=OSError())
    late.allow_only(["driver/queue"])

    with pytest.raises(ValueError, match=r'no driver "driver/queu"; did you mean "driver/queue"\?'):
        early.allow_only(["driver/queue"])
    with pytest.raises(ValueError, match=r"there are: driver/queue$"):
        late.fail("worker/shop", "order", error=OSError())


async def test_what_was_not_reached_is_told_once_with_what_was_called() -> None:
    faults = Faults()
    broker = faulty(Store(), faults, "driver/queue")
    faults.fail("driver/queue", "send", at=2, error=OSError())
    faults.cancel("driver/queue", "declare", scope=trio.CancelScope())
    await send(broker, "one")

    told = r"call 2 of driver/queue.send, call 1 of driver/queue.declare; calls: driver/queue.send \(1\)"
    with pytest.raises(AssertionError, match=told):
        faults.check_reached()
    faults.check_reached()


async def test_a_script_may_say_that_it_need_not_be_played() -> None:
    faults = Faults(may_miss=True)
    faults.fail("driver/queue", "send", error=OSError())

    faults.check_reached()

    assert faults.unreached() == ["call 1 of driver/queue.send"]


async def test_a_call_that_is_never_made_is_not_waited_for_for_ever(autojump_clock: MockClock) -> None:
    faults = Faults()
    broker = faulty(Store(), faults, "driver/queue")
    stall = faults.stall("driver/queue", "send", at=2)
    await send(broker, "one")

    with pytest.raises(AssertionError, match=r"call 2 of driver/queue.send was not made .* driver/queue.send \(1\)"):
        await stall.reached.wait()


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
