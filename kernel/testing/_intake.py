"""An `Intake` that remembers: what a dispatcher brings in, what became of it, and how long it made the source wait."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias, final

import attrs
import trio
from typing_extensions import override

from kernel import Ack, Outcome, Return
from kernel.abc import Delivery, Intake, Target, Work

from .._core.intake import CURRENT_WORK

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    Answer: TypeAlias = Callable[[Delivery], Awaitable[Outcome]]

SETTLE_TIMEOUT = 5.0
"""Seconds that settling may take, as in the kernel."""


@final
@attrs.frozen(repr=False)
class Settled:
    """A delivery, the outcome it was settled with, and what settling it raised."""

    delivery: Delivery
    outcome: Outcome
    error: Exception | None = None


async def acknowledge(_delivery: Delivery) -> Outcome:
    """Answer any delivery with `Ack()`; is a checkpoint."""
    await trio.lowlevel.checkpoint()
    return Ack()


@final
@attrs.define(eq=False, repr=False)
class RecordingIntake(Intake):
    """What `open_intake` yields."""

    _nursery: trio.Nursery
    _limiter: trio.CapacityLimiter
    _answer: Answer
    _targets: Sequence[Target] = ()
    taken: list[Delivery] = attrs.field(factory=list[Delivery], init=False)
    """All that was given to `submit`, `submit_nowait` and `handle`, whether it got a slot or not."""
    settled: list[Settled] = attrs.field(factory=list[Settled], init=False)
    slots: list[tuple[str, str]] = attrs.field(factory=list[tuple[str, str]], init=False)
    """`(label, worker)` of each work that entered."""
    works: set[Work] = attrs.field(factory=set[Work], init=False)
    """What has entered and not left."""
    _revocables: dict[str, trio.CancelScope] = attrs.field(factory=dict[str, trio.CancelScope], init=False)
    waiting: int = attrs.field(default=0, init=False)
    """How many wait for a slot at this moment."""
    most_waiting: int = attrs.field(default=0, init=False)
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    @property
    @override
    def concurrency(self) -> int:
        return int(self._limiter.total_tokens)

    @property
    @override
    def targets(self) -> Sequence[Target]:
        return self._targets

    @property
    def in_flight(self) -> int:
        """How many slots are occupied."""
        return int(self._limiter.borrowed_tokens)

    @property
    def arrivals(self) -> int:
        """How many deliveries and slots there were so far."""
        return len(self.taken) + len(self.slots)

    async def wait_arrivals(self, count: int) -> None:
        """Wait until there were so many deliveries and slots.

        Cancellation: Is a checkpoint.
        """
        await trio.lowlevel.checkpoint()
        while self.arrivals < count:
            await self._changed.park()

    async def wait_settled(self, count: int) -> None:
        """Wait until so many deliveries were settled.

        Cancellation: Is a checkpoint.
        """
        await trio.lowlevel.checkpoint()
        while len(self.settled) < count:
            await self._changed.park()

    def cut(self) -> None:
        """Cancel what is in flight, as the kernel does at the drain deadline."""
        self._nursery.cancel_scope.cancel()
        for work in list(self.works):
            work.cut()

    @override
    async def submit(self, delivery: Delivery, *, revocable_as: str = "") -> None:
        scope = trio.CancelScope()
        if revocable_as:
            self._revocables[revocable_as] = scope
        await self._start(delivery, scope)

    @override
    def submit_nowait(self, delivery: Delivery, *, revocable_as: str = "") -> None:
        holder, scope = object(), trio.CancelScope()
        self._limiter.acquire_on_behalf_of_nowait(holder)
        self.taken.append(delivery)
        self._changed.unpark_all()
        if revocable_as:
            self._revocables[revocable_as] = scope
        self._nursery.start_soon(self._serve, delivery, scope, holder, trio.Event())

    @override
    def revoke(self, name: str) -> bool:
        """Cancel the answer to what was submitted under a name; it is acknowledged."""
        scope = self._revocables.pop(name, None)
        if scope is not None:
            scope.cancel()
        return scope is not None

    @override
    async def handle(self, delivery: Delivery) -> Outcome:
        ended = await self._start(delivery, trio.CancelScope())
        await ended.wait()
        return next(settled.outcome for settled in reversed(self.settled) if settled.delivery is delivery)

    async def _start(self, delivery: Delivery, scope: trio.CancelScope) -> trio.Event:
        self.taken.append(delivery)
        self._changed.unpark_all()
        holder, ended = object(), trio.Event()
        try:
            await self._occupy(holder)
        except trio.Cancelled:
            await self._settle(delivery, Return())  # noqa: ASYNC102  # shielded in there
            raise
        self._nursery.start_soon(self._serve, delivery, scope, holder, ended)
        return ended

    @override
    def enter_nowait(self, work: Work, *, counts: bool = True) -> None:
        if counts:
            self._limiter.acquire_on_behalf_of_nowait(work)
        self._begin(work)

    @override
    async def enter(self, work: Work) -> None:
        await self._occupy(work)
        self._begin(work)

    def _begin(self, work: Work) -> None:
        self.works.add(work)
        CURRENT_WORK.set(work)
        self.slots.append((work.label, work.worker))
        self._changed.unpark_all()
        if self._nursery.cancel_scope.cancel_called:
            work.cut()

    @override
    def leave(self, work: Work) -> None:
        CURRENT_WORK.set(None)
        self.works.remove(work)
        with suppress(RuntimeError):  # it took no slot
            self._limiter.release_on_behalf_of(work)
        self._changed.unpark_all()

    @override
    def give_up_slot(self, work: Work) -> bool:
        try:
            self._limiter.release_on_behalf_of(work)
        except RuntimeError:  # it had none
            return False
        return True

    async def _occupy(self, holder: object) -> None:
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        try:
            await self._limiter.acquire_on_behalf_of(holder)
        finally:
            self.waiting -= 1

    async def _serve(self, delivery: Delivery, scope: trio.CancelScope, holder: object, ended: trio.Event) -> None:
        outcome: Outcome = Return()
        try:
            with scope:
                if not scope.cancel_called:
                    outcome = await self._answer(delivery)
        finally:
            self._revocables = {name: one for name, one in self._revocables.items() if one is not scope}
            outcome = Ack() if scope.cancel_called else outcome
            await self._settle(delivery, outcome)  # noqa: ASYNC102  # shielded in there
            self._limiter.release_on_behalf_of(holder)
            ended.set()

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> None:  # noqa: ASYNC910  # settling is one
        error: Exception | None = None
        try:
            with trio.move_on_after(SETTLE_TIMEOUT, shield=True):
                await delivery.settle(outcome)
        except Exception as raised:  # noqa: BLE001  a source that breaks must not break the intake; it is recorded
            error = raised
        self.settled.append(Settled(delivery, outcome, error))
        self._changed.unpark_all()


@asynccontextmanager
async def open_intake(
    *, concurrency: int = 1, answer: Answer = acknowledge, targets: Sequence[Target] = ()
) -> AsyncGenerator[RecordingIntake]:
    """Open an intake that a dispatcher under test can be given.

    Leaving it waits until everything in flight is settled, as draining does.

    Args:
        concurrency: How many may be in flight.
        answer: Stands for the workers: is given each delivery, returns its outcome. It may wait.
        targets: What `Intake.targets` is to be.

    Cancellation: Is a checkpoint on exit. If cancelled, what is in flight is settled with `Return`.
    """
    async with trio.open_nursery() as nursery:
        yield RecordingIntake(nursery, trio.CapacityLimiter(concurrency), answer, targets)
