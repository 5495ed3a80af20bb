"""Every conformance check but those of protocols and brokers passes what is right and fails each broken variant, naming the promise.

Long, because each promise has its own broken variant, and they are built from the same three right ones.
"""

from __future__ import annotations

import math
import os
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

import attrs
import pytest
import trio
from typing_extensions import override

from kernel import Ack, Envelope, Outcome, handles
from kernel.abc import Delivery, Dispatcher, Driver, Intake
from kernel.errors import SettledError
from kernel.testing import check_dispatcher, check_driver, check_worker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from trio.testing import MockClock

    from kernel.testing import Feed


LEAKED: list[int] = []


def leak() -> int:
    """Return a descriptor that nobody closes before the test is over."""
    LEAKED.append(os.dup(0))
    return LEAKED[-1]


def give_back(descriptor: int) -> None:
    LEAKED.remove(descriptor)
    os.close(descriptor)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    LeaksThread.done.clear()
    yield
    LeaksThread.done.set()
    while LEAKED:
        os.close(LEAKED.pop())


# --- drivers --------------------------------------------------------------------------------------------------------


@attrs.define
class Connection:
    users: int = 0
    closed: bool = False


async def use(connection: Connection) -> None:
    assert not connection.closed
    connection.users += 1
    await trio.sleep(1)
    connection.users -= 1


class Right(Driver[Connection]):
    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Connection]:
        await trio.sleep(1)
        connection = Connection()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            yield connection
            nursery.cancel_scope.cancel()
        connection.closed = True
        await trio.sleep(1)


class ClosedOnEntry(Driver[Connection]):
    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Connection]:
        await trio.lowlevel.checkpoint()
        yield Connection(closed=True)


class LeaksDescriptor(Driver[Connection]):
    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Connection]:
        await trio.lowlevel.checkpoint()
        leak()
        yield Connection()


class LeaksWhenCancelled(Driver[Connection]):
    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Connection]:
        descriptor = leak()
        await trio.sleep(1)
        try:
            yield Connection()
        finally:
            give_back(descriptor)


class LeaksWhenCancelledInExit(Driver[Connection]):
    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Connection]:
        await trio.lowlevel.checkpoint()
        descriptor = leak()
        try:
            yield Connection()
        finally:
            await trio.sleep(1)
            give_back(descriptor)


class LeaksThread(Driver[Connection]):
    done = threading.Event()

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Connection]:
        await trio.lowlevel.checkpoint()
        threading.Thread(target=self.done.wait, daemon=True, name="leaked").start()
        yield Connection()


class LeaksTask(Driver[Connection]):
    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Connection]:
        await trio.lowlevel.checkpoint()
        trio.lowlevel.spawn_system_task(trio.sleep, 1e6)
        yield Connection()


class ForOneUser(Driver[Connection]):
    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Connection]:
        await trio.lowlevel.checkpoint()
        yield OneUser()


class OneUser(Connection):
    busy = False

    @property
    def users(self) -> int:
        return 0

    @users.setter
    def users(self, value: int) -> None:
        if value == 1 and self.busy:
            raise RuntimeError("somebody else is using it")
        self.busy = value == 1


class OpensOnce(Driver[Connection]):
    opened = 0

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Connection]:
        await trio.lowlevel.checkpoint()
        type(self).opened += 1
        if type(self).opened > 2:
            raise RuntimeError("already opened")
        yield Connection()


class ClosesSlowly(Driver[Connection]):
    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Connection]:
        await trio.lowlevel.checkpoint()
        yield Connection()
        await trio.sleep(3)


class ClosesSlowlyWhenCancelled(Driver[Connection]):
    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Connection]:
        await trio.lowlevel.checkpoint()
        try:
            yield Connection()
        finally:
            is_cancelled = trio.current_effective_deadline() == -math.inf
            with trio.CancelScope(shield=True):
                await trio.sleep(3 if is_cancelled else 0)


class FailsWhenCancelled(Driver[Connection]):
    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Connection]:
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            raise RuntimeError("interrupted") from None
        yield Connection()


async def test_a_right_driver_passes(autojump_clock: MockClock) -> None:
    await check_driver(Right, use=use)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (ClosedOnEntry, "what a driver opens is usable"),
        (LeaksDescriptor, "closed afterwards: left behind: descriptor"),
        (LeaksThread, "closed afterwards: left behind: thread leaked"),
        (LeaksTask, "closed afterwards: tasks left behind"),
        (OpensOnce, "a driver that was closed can be opened again"),
        (ForOneUser, "two tasks can use the resource at once"),
        (ClosesSlowly, "closing takes at most stop_timeout: it took 3 s"),
        (ClosesSlowlyWhenCancelled, "leaves nothing behind: it took 3 s when cancelled at checkpoint"),
        (LeaksWhenCancelled, "leaves nothing behind: left behind: descriptor"),
        (LeaksWhenCancelledInExit, "leaves nothing behind: left behind: descriptor"),
        (FailsWhenCancelled, "leaves nothing behind: RuntimeError: interrupted (cancelled at checkpoint 1)"),
    ],
)
async def test_a_broken_driver_fails(broken: type[Driver[Connection]], promise: str, autojump_clock: MockClock) -> None:
    with pytest.raises(AssertionError) as raised:
        await check_driver(broken, use=use)

    assert promise in str(raised.value)


async def test_a_driver_that_is_not_new_fails(autojump_clock: MockClock) -> None:
    driver = Right()

    with pytest.raises(AssertionError, match=r"as a new object: make\(\) returned the same driver twice"):
        await check_driver(lambda: driver, use=use)


# --- dispatchers ----------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Parcel(Delivery):
    envelope: Envelope = attrs.field(factory=lambda: Envelope(subject="check"))
    attempt: int = 1
    redelivered: bool = False
    outcome: Outcome | None = None

    @override
    async def settle(self, outcome: Outcome) -> None:
        await trio.lowlevel.checkpoint()
        if self.outcome is not None:
            raise SettledError("settled twice")
        self.outcome = outcome


class Forgetful(Parcel):
    @override
    async def settle(self, outcome: Outcome) -> None:
        await trio.lowlevel.checkpoint()


class Belt(Dispatcher):
    """A right dispatcher, on a memory channel."""

    parcel: type[Parcel] = Parcel

    def __init__(self, source: trio.MemoryReceiveChannel[int]) -> None:
        self.source = source

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        await trio.lowlevel.checkpoint()
        yield

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async for _ in self.source:
            await self.bring(intake)

    async def bring(self, intake: Intake) -> None:
        await intake.submit(self.parcel())


class Slots(Belt):
    """A right dispatcher that does not deliver."""

    delivers = False

    @override
    async def bring(self, intake: Intake) -> None:
        async with intake.slot("request"):
            await trio.sleep(0.1)


class StartsTwice(Belt):
    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await super().accept(intake, task_status=task_status)


class NeverStarts(Belt):
    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        await super().accept(intake, task_status=trio.TASK_STATUS_IGNORED)


class SettlesItself(Belt):
    @override
    async def bring(self, intake: Intake) -> None:
        parcel = self.parcel()
        await parcel.settle(Ack())
        await intake.submit(parcel)


class SettlesTwice(Belt):
    parcel = Forgetful


class DeliversTwice(Belt):
    @override
    async def bring(self, intake: Intake) -> None:
        parcel = Forgetful()
        await intake.submit(parcel)
        await intake.submit(parcel)


class Hoards(Belt):
    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async with trio.open_nursery() as nursery:
            async for _ in self.source:
                nursery.start_soon(self.bring, intake)


class GoesOn(Belt):
    """Takes deliveries in `open`, which goes on after accepting has ended."""

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            yield
            nursery.cancel_scope.cancel()

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        self.nursery.start_soon(self.pump, intake)
        task_status.started()
        await trio.sleep_forever()

    async def pump(self, intake: Intake) -> None:
        async for _ in self.source:
            await self.bring(intake)


class WaitsForAnswer(Belt):
    @override
    async def bring(self, intake: Intake) -> None:
        with trio.CancelScope(shield=True):
            await intake.handle(self.parcel())


class LeaksWhenStopped(Belt):
    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        descriptor = leak()
        await super().accept(intake, task_status=task_status)
        give_back(descriptor)


def belt(kind: Callable[[trio.MemoryReceiveChannel[int]], Dispatcher]) -> Callable[[], object]:
    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[Dispatcher, Feed]]:
        sender, receiver = trio.open_memory_channel[int](100)

        async def feed(count: int) -> None:
            for number in range(count):
                await sender.send(number)

        yield kind(receiver), feed

    return make


@pytest.mark.parametrize("kind", [Belt, Slots])
async def test_a_right_dispatcher_passes(kind: type[Belt], autojump_clock: MockClock) -> None:
    await check_dispatcher(belt(kind))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (StartsTwice, "says once that it has started: it said so 2 times"),
        (NeverStarts, "says once that it has started: this was not decided"),
        (SettlesItself, "handed over once and settled once: settling with Ack(reply=None) raised SettledError"),
        (SettlesTwice, "a delivery let itself be settled twice"),
        (DeliversTwice, "one delivery was handed over twice"),
        (Hoards, "the source waits while the intake is full"),
        (GoesOn, "nothing is taken after accepting was cancelled: 2 came after it"),
        (WaitsForAnswer, "accept() went on for 2 s, waiting for what is in flight"),
        (LeaksWhenStopped, "left behind: descriptor"),
    ],
)
async def test_a_broken_dispatcher_fails(broken: type[Belt], promise: str, autojump_clock: MockClock) -> None:
    with pytest.raises(AssertionError) as raised:
        await check_dispatcher(belt(broken))  # type: ignore[arg-type]

    assert promise in str(raised.value)


# --- workers --------------------------------------------------------------------------------------------------------


class Shop:
    def __init__(self, store: list[object], config: dict[str, object]) -> None:
        self.store = store
        self.config = config

    async def __aenter__(self) -> Self:
        await trio.sleep(1)
        return self

    async def __aexit__(self, *_: object) -> None:
        await trio.lowlevel.checkpoint()

    @handles("order.created")
    async def on_created(self, order: dict[str, int], envelope: Envelope, delivery: Delivery) -> int:
        await trio.sleep(1)
        assert (delivery.attempt, delivery.redelivered) == (1, False)
        assert delivery.envelope.subject == envelope.subject
        self.store.append(order)
        return len(self.store)

    async def run(self) -> None:
        await trio.sleep_forever()


class Plugless(Shop):
    def __init__(self, store: list[object], config: dict[str, object], missing: object) -> None:
        super().__init__(store, config)
        self.missing = missing


class Silent(Shop):
    @handles("order.paid")
    async def on_paid(self, order: object) -> None:
        await trio.lowlevel.checkpoint()


class Choosy(Shop):
    @override
    @handles("order.created")
    async def on_created(self, order: list[str], envelope: Envelope, delivery: Delivery) -> int:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        return 0


class Shared(Shop):
    instances: list[object] = []

    @override
    async def __aenter__(self) -> Self:
        self.instances.append(self)
        if len(self.instances) > 1:
            raise RuntimeError("there is one already")
        return await super().__aenter__()

    @override
    async def __aexit__(self, *_: object) -> None:
        self.instances.clear()
        await trio.lowlevel.checkpoint()


class Leaky(Shop):
    @override
    async def __aenter__(self) -> Self:
        self.descriptor = leak()
        return await super().__aenter__()

    @override
    async def __aexit__(self, *_: object) -> None:
        give_back(self.descriptor)
        await trio.lowlevel.checkpoint()

    @override
    @handles("order.created")
    async def on_created(self, order: dict[str, int], envelope: Envelope, delivery: Delivery) -> int:
        try:
            return await super().on_created(order, envelope, delivery)
        except trio.Cancelled:
            leak()
            raise


class Slow(Shop):
    @override
    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)


async def greet(name: str, store: list[object]) -> str:
    await trio.lowlevel.checkpoint()
    store.append(name)
    return f"hello {name}"


async def beat(store: list[object]) -> None:
    while len(store) < 100:  # noqa: ASYNC110  a loop that lives on time is what is tested
        await trio.sleep(1)


def resources() -> dict[str, object]:
    return {"store": []}


async def check_shop(worker: type[Shop]) -> None:
    samples = {"on_created": {"id": 1}}
    await check_worker(worker, samples=samples, resources=resources, config={"city": "berlin"})


async def test_a_right_worker_passes(autojump_clock: MockClock) -> None:
    await check_shop(Shop)


async def test_a_function_passes(autojump_clock: MockClock) -> None:
    await check_worker(greet, samples={"": "ada"}, resources=resources)


async def test_a_function_that_is_a_loop_passes(autojump_clock: MockClock) -> None:
    await check_worker(beat, resources=resources)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Plugless, "a worker asks for what it can be given"),
        (Silent, "there is a sample for each handler: there is none for 'on_paid'"),
        (Choosy, "each handler takes its payload"),
        (Shared, "two instances do not disturb each other: RuntimeError: there is one already"),
        (Leaky, "a worker that is cancelled leaves nothing behind: left behind: descriptor"),
        (Slow, "a worker that is cancelled leaves nothing behind: it took 5 s"),
    ],
)
async def test_a_broken_worker_fails(broken: type[Shop], promise: str, autojump_clock: MockClock) -> None:
    with pytest.raises(AssertionError) as raised:
        await check_shop(broken)

    assert promise in str(raised.value)


async def test_a_sample_without_a_handler_fails() -> None:
    with pytest.raises(AssertionError, match="a sample for 'other', which handles nothing"):
        await check_worker(Shop, samples={"on_created": {}, "other": 1}, resources=resources, config={})
