"""The conformance check of dispatchers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias, final

import attrs
import trio
from typing_extensions import override

from .._core.envelope import Ack
from ..errors import SettledError
from ._cancel import cancel_and_time
from ._intake import RecordingIntake, acknowledge, open_intake
from ._leaks import no_task_leaks
from ._promise import LIMIT, expect, prove

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .._core.envelope import Outcome
    from ..abc import Delivery, Dispatcher
    from ._intake import Answer

Feed: TypeAlias = Callable[[int], Awaitable[None]]
"""Has the source offer so many deliveries. May wait until they are answered: it runs in a task of its own."""
MakeDispatcher: TypeAlias = "Callable[[], AbstractAsyncContextManager[tuple[Dispatcher, Feed]]]"
"""Opens whatever a dispatcher needs, and yields a new one with what feeds it."""


async def check_dispatcher(
    make: MakeDispatcher, *, waiting: int = 1, patience: float = 0.3, stop_timeout: float = 2.0
) -> None:
    """Test a dispatcher against the promises of `kernel.abc.Dispatcher`.

    Works on the real clock and on an autojump clock. Of a dispatcher that does not deliver (`delivers` is false)
    it is the slots that count.

    Args:
        make: Returns what opens a new dispatcher and its source; called for each case.
        waiting: How many deliveries it may hold while the intake is full.
        patience: Seconds in which a dispatcher that does what it must not would have done it. For one that is
            driven by time, several times as long as `feed(1)` takes.
        stop_timeout: Seconds that closing may take.

    Raises:
        AssertionError: naming the promise that is broken, and what happened instead.

    Cancellation: Is a checkpoint.
    """
    bench = _Bench(make, waiting, patience, stop_timeout)
    for promise, case in (
        ("a dispatcher can be opened and closed without accepting, and again", bench.open_and_close),
        ("accept() says once that it has started", bench.start_once),
        ("each delivery is handed over once and settled once", bench.settle_once),
        ("nothing is taken after accepting was cancelled", bench.stop_at_once),
        ("the source waits while the intake is full", bench.wait_when_full),
        ("what is in flight is settled after accepting was cancelled", bench.finish),
        ("a dispatcher that is cancelled leaves nothing behind", bench.cancel_everywhere),
    ):
        await prove(promise, case, limit=LIMIT + 10 * patience)


@final
@attrs.define(eq=False, repr=False)
class _Status(trio.TaskStatus[None]):
    """Counts, where trio's own would raise into the dispatcher."""

    started_count: int = 0
    first: trio.Event = attrs.field(factory=trio.Event)

    @override
    def started(self, value: None = None) -> None:
        self.started_count += 1
        self.first.set()


@final
@attrs.define(eq=False, repr=False)
class _Stage:
    """A dispatcher that accepts."""

    dispatcher: Dispatcher
    feed: Feed
    intake: RecordingIntake
    feeding: trio.Nursery
    status: _Status = attrs.field(factory=_Status)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ended: trio.Event = attrs.field(factory=trio.Event)

    async def accept(self) -> None:
        with self.scope:
            await self.dispatcher.accept(self.intake, task_status=self.status)
        self.ended.set()

    async def wait_settled(self, count: int) -> None:
        await trio.lowlevel.checkpoint()
        if self.dispatcher.delivers:
            await self.intake.wait_settled(count)

    async def stop(self) -> None:
        self.scope.cancel()
        await self.ended.wait()


@final
@attrs.frozen(repr=False)
class _Bench:
    make: MakeDispatcher
    waiting: int
    patience: float
    stop_timeout: float

    @asynccontextmanager
    async def accepting(self, *, concurrency: int = 3, answer: Answer = acknowledge) -> AsyncGenerator[_Stage]:
        async with (
            self.make() as (dispatcher, feed),
            dispatcher.open(),
            open_intake(concurrency=concurrency, answer=answer) as intake,
            trio.open_nursery() as nursery,
        ):
            stage = _Stage(dispatcher, feed, intake, nursery)
            nursery.start_soon(stage.accept)
            await stage.status.first.wait()
            yield stage
            await stage.stop()
            nursery.cancel_scope.cancel()

    async def open_and_close(self) -> None:
        for _ in range(2):
            async with no_task_leaks(), self.make() as (dispatcher, _feed), dispatcher.open():
                await trio.lowlevel.checkpoint()

    async def start_once(self) -> None:
        async with self.accepting() as stage:
            stage.feeding.start_soon(stage.feed, 1)
            await stage.intake.wait_arrivals(1)
            expect(stage.status.started_count == 1, f"it said so {stage.status.started_count} times")

    async def settle_once(self) -> None:
        async with self.accepting() as stage:
            stage.feeding.start_soon(stage.feed, 3)
            await stage.intake.wait_arrivals(3)
            await stage.wait_settled(3)
            await stage.stop()
        intake = stage.intake
        expect(len(set(map(id, intake.taken))) == len(intake.taken), "one delivery was handed over twice")
        for settled in intake.settled:
            expect(settled.error is None, f"settling with {settled.outcome} raised {settled.error!r}")
            await _expect_settled(settled.delivery)

    async def wait_when_full(self) -> None:
        block = _Block()
        async with self.accepting(concurrency=1, answer=block.answer) as stage:
            stage.feeding.start_soon(stage.feed, 3 + self.waiting)
            await stage.intake.wait_arrivals(1)
            await trio.sleep(self.patience)
            held = stage.intake.most_waiting
            block.release.set()
            expect(held <= self.waiting, f"{held} deliveries were held for an intake with one slot")

    async def stop_at_once(self) -> None:
        async with self.accepting() as stage:
            stage.feeding.start_soon(stage.feed, 1)
            await stage.intake.wait_arrivals(1)
            await stage.stop()
            before = stage.intake.arrivals
            stage.feeding.start_soon(_tolerant, stage.feed)
            await trio.sleep(self.patience)
            expect(stage.intake.arrivals == before, f"{stage.intake.arrivals - before} came after it")

    async def finish(self) -> None:
        block = _Block()
        async with self.accepting(answer=block.answer) as stage:
            stage.feeding.start_soon(stage.feed, 1)
            await stage.intake.wait_arrivals(1)
            stage.scope.cancel()
            with trio.move_on_after(self.stop_timeout):
                await stage.ended.wait()
            has_ended = stage.ended.is_set()
            block.release.set()
            await stage.wait_settled(1)
            expect(has_ended, f"accept() went on for {self.stop_timeout:g} s, waiting for what is in flight")
            outcomes = [settled.outcome for settled in stage.intake.settled]
            expect(not stage.dispatcher.delivers or outcomes[0] == Ack(), f"it was settled with {outcomes}")

    async def cancel_everywhere(self) -> None:
        at, intakes = 1, list[RecordingIntake]()

        async def live() -> None:
            async with self.accepting() as stage:
                intakes.append(stage.intake)
                stage.feeding.start_soon(stage.feed, 1)
                await stage.intake.wait_arrivals(1)

        await live()
        while True:
            async with no_task_leaks():
                took = await cancel_and_time(live, at)
            where = f"cancelled at checkpoint {at}"
            unsettled = [len(intake.taken) - len(intake.settled) for intake in intakes]
            expect(not any(unsettled), f"{sum(unsettled)} deliveries were not settled when {where}")
            if took is None:
                return
            expect(took <= self.stop_timeout, f"it took {took:.3g} s when {where}")
            at += 1


@final
@attrs.frozen(repr=False)
class _Block:
    """An answer that is not given before it is let go."""

    release: trio.Event = attrs.field(factory=trio.Event)

    async def answer(self, _delivery: Delivery) -> Outcome:
        await self.release.wait()
        return Ack()


async def _tolerant(feed: Feed) -> None:
    """Feed a source that may refuse, since nobody accepts any more."""
    await trio.lowlevel.checkpoint()
    try:
        await feed(2)
    except Exception:  # noqa: BLE001  a refused connection is a right answer; what arrives is what counts
        return


async def _expect_settled(delivery: Delivery) -> None:
    await trio.lowlevel.checkpoint()
    try:
        await delivery.settle(Ack())
    except SettledError:
        return
    raise AssertionError("a delivery let itself be settled twice")
