"""Where dispatchers put deliveries: slots, back-pressure, settling exactly once, and cutting at the drain deadline."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Final, final

import attrs
import trio

from ._attempt import Attempting, Leash, Raised, Verdict
from ._broker import Delivery
from ._bucket import Bucket
from ._envelope import Ack, Outcome, Return
from ._events import DeliveryDone, DeliveryRevoked, DeliverySettled, EventHub, SettleFailed
from ._stacks import where
from .abc import Intake, Target

SETTLE_TIMEOUT: Final = 5.0
"""Seconds that a source may take to note an outcome."""
_RETURNED: Final = Verdict(Return())
TURN: Final = 16
"""Free slots that a source may take before every other task has had its turn: a turn costs as much as a slot."""


@final
@attrs.define(eq=False)
class _Ended:
    """What `handle` waits for."""

    event: trio.Event = attrs.field(factory=trio.Event)
    outcome: Outcome = attrs.field(factory=Return)


@final
@attrs.define(eq=False)
class _Revocable:
    """A delivery whose handler can be cancelled from outside."""

    name: str
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)


@final
@attrs.define(eq=False)
class _Errand:
    """A delivery that has its slot."""

    delivery: Delivery
    ended: _Ended | None = None
    revocable: _Revocable | None = None


@final
@attrs.define(eq=False)
class _Runner:
    """A task that does one errand after the other."""

    task: trio.lowlevel.Task
    errand: _Errand | None
    """None while it has none."""
    context: Context
    """What each errand begins with: what a handler leaves in its context variables is not for the next one."""
    began: float = attrs.field(default=0.0, init=False)
    """When it began the errand."""


@final
@attrs.define(eq=False)
class KernelIntake(Intake):
    """The intake of one life of a dispatcher."""

    component: str
    """The dispatcher's id."""
    _concurrency: int
    _targets: Sequence[Target]
    _pipeline: Attempting
    _hub: EventHub
    _nursery: trio.Nursery
    """In which submitted deliveries are handled."""
    _bucket: Bucket | None = None
    """Bounds how many deliveries are started in a time."""
    _free: int = attrs.field(init=False)
    _taken: int = attrs.field(default=0, init=False)
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _idle: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _active: dict[int, tuple[object, trio.lowlevel.Task]] = attrs.field(
        factory=dict[int, tuple[object, trio.lowlevel.Task]], init=False
    )
    """What is in flight (a delivery, or the scope of a slot) and the task that works on it, by `id`: a plugin's
    delivery need not be hashable."""
    _revocables: dict[str, list[_Revocable]] = attrs.field(factory=dict[str, list[_Revocable]], init=False)
    """By name; several where a source delivered the same thing twice."""
    _slots: dict[trio.CancelScope, str] = attrs.field(factory=dict[trio.CancelScope, str], init=False)
    _over: bool = attrs.field(default=False, init=False)
    _runners: dict[_Runner, None] = attrs.field(factory=dict[_Runner, None], init=False)
    """Those that have done an errand and wait for the next; as many as were in flight at a time, at most."""

    def __attrs_post_init__(self) -> None:
        self._free = self._concurrency

    @property
    def concurrency(self) -> int:
        """How many may be in flight."""
        return self._concurrency

    @property
    def targets(self) -> Sequence[Target]:
        """The workers of the dispatcher."""
        return self._targets

    @property
    def in_flight(self) -> int:
        """How many slots are taken."""
        return self._concurrency - self._free

    async def submit(self, delivery: Delivery, *, revocable_as: str = "") -> None:
        """Wait for a slot, then handle the delivery in a task of its own."""
        if revocable_as:
            await self._submit_revocable(delivery, _Revocable(revocable_as))
            return
        await self._take(delivery)
        self._start(_Errand(delivery))

    async def _submit_revocable(self, delivery: Delivery, revocable: _Revocable) -> None:
        self._revocables.setdefault(revocable.name, []).append(revocable)
        try:
            await self._take(delivery)
        except BaseException:
            self._forget(revocable)
            raise
        self._start(_Errand(delivery, revocable=revocable))

    def revoke(self, name: str) -> bool:
        """Cancel the handlers of what was submitted under a name; return whether there was any."""
        found = self._revocables.get(name, ())
        for revocable in found:
            revocable.scope.cancel()
        return bool(found)

    async def handle(self, delivery: Delivery) -> Outcome:
        """Wait for a slot, then handle the delivery in a task of its own and wait for the outcome."""
        await self._take(delivery)
        ended = _Ended()
        self._start(_Errand(delivery, ended))
        await ended.event.wait()
        return ended.outcome

    @asynccontextmanager
    async def slot(self, label: str = "", *, worker: str = "") -> AsyncGenerator[None]:
        """Occupy a slot."""
        await self._take(None)
        scope = trio.CancelScope()
        self._active[id(scope)] = scope, trio.lowlevel.current_task()
        if self._over:  # it waited for its slot until after the cut
            scope.cancel()
        self._slots[scope] = f"worker/{worker} {label}" if worker else label
        try:
            with scope:
                yield
        finally:
            del self._slots[scope]
            self._release(scope)

    async def wait_idle(self) -> None:
        """Wait until nothing is in flight.

        Cancellation: Is a checkpoint.
        """
        await trio.lowlevel.checkpoint()
        while self.in_flight:
            await self._idle.park()

    def working_on(self, delivery: Delivery) -> None:
        """Note that the current task works on a delivery that another waits for."""
        if id(delivery) in self._active:
            self._active[id(delivery)] = delivery, trio.lowlevel.current_task()

    def cut_slots(self) -> None:
        """Cancel what runs in slots; submitted deliveries belong to the nursery and end with it."""
        self._over = True
        for scope in self._slots:
            scope.cancel()

    def culprits(self) -> tuple[str, ...]:
        """Return what is in flight, each with the line of user code that it is at."""
        return tuple(f"{self._label(key)} at {where(task)}" for key, task in self._active.values())

    def _label(self, key: object) -> str:
        if isinstance(key, Delivery):
            return f"delivery {key.envelope.id} ({key.envelope.subject[:100]!r})"
        return self._slots[key] if isinstance(key, trio.CancelScope) else self.component

    async def _take(self, delivery: Delivery | None) -> None:
        """Take a slot; if cancelled while waiting for it, return the delivery to its source."""
        try:
            self._taken = (self._taken + 1) % TURN
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._taken == 0:
                await trio.lowlevel.checkpoint()
            if self._free:
                self._free -= 1
            else:
                await self._waiting.park()  # whoever releases a slot hands it over
            if self._bucket is not None and delivery is not None:
                await self._wait_for_token(self._bucket)
        except trio.Cancelled:
            if delivery is not None:
                await self._settle(delivery, Return())  # noqa: ASYNC102  it shields itself
                self._tell(delivery, _RETURNED, trio.current_time())
            raise

    async def _wait_for_token(self, bucket: Bucket) -> None:
        """Wait until one more may be started; if cancelled, give the slot back."""
        try:
            await bucket.take()
        except trio.Cancelled:
            self._free_slot()
            raise

    def _release(self, key: object) -> None:
        del self._active[id(key)]
        self._free_slot()

    def _free_slot(self) -> None:
        if self._waiting:
            self._waiting.unpark()
            return
        self._free += 1
        if self._free == self._concurrency and self._idle:
            self._idle.unpark_all()

    def _start(self, errand: _Errand) -> None:
        """Have a task that is idle do an errand, or a new one."""
        if self._runners:
            runner, _ = self._runners.popitem()
            runner.errand = errand
            trio.lowlevel.reschedule(runner.task)
        else:
            self._nursery.start_soon(self._run, errand, name=self.component)

    async def _run(self, errand: _Errand) -> None:
        """Do one errand after the other: to make a task for each costs as much as many a handler."""
        task = trio.lowlevel.current_task()
        runner = _Runner(task, errand, task.context.copy())
        try:
            while True:
                await self._run_on(Leash(), runner)
        finally:
            if runner.errand is not None:
                await self._end(runner, _RETURNED)  # noqa: ASYNC102  it shields itself

    async def _run_on(self, leash: Leash, runner: _Runner) -> None:  # noqa: ASYNC910  as `_do_errands`
        """Do errands until the leash is used up: by a call that was cut, or by the deadline of the last one."""
        raised: Raised = None
        try:
            with leash.scope:
                await self._do_errands(leash, runner)
        except (Exception, SystemExit) as error:
            if leash.call is None:
                raise
            raised = error
        verdict = leash.judged(raised)
        if verdict is not None:
            await self._end(runner, verdict)

    async def _do_errands(self, leash: Leash, runner: _Runner) -> None:  # noqa: ASYNC910  it waits when all is done
        while not leash.scope.cancel_called:
            errand = runner.errand
            if errand is None:
                await self._wait_errand(runner)
                continue
            delivery = errand.delivery
            runner.began = trio.current_time()
            self._active[id(delivery)] = delivery, runner.task
            if errand.revocable is None:
                verdict = await self._pipeline.attempt(delivery, leash)
            else:
                leash.loosen()
                verdict = await self._attempt_revocable(delivery, errand.revocable)
            await self._end(runner, verdict)

    async def _wait_errand(self, runner: _Runner) -> None:
        """Wait for the next; the end of the nursery ends it, and so may the deadline of the last call."""

        def dismiss(_: object) -> trio.lowlevel.Abort:
            del self._runners[runner]
            return trio.lowlevel.Abort.SUCCEEDED

        runner.task.context = runner.context.copy()  # which holds from the next step of the task on
        self._runners[runner] = None
        await trio.lowlevel.wait_task_rescheduled(dismiss)

    async def _end(self, runner: _Runner, verdict: Verdict) -> None:
        """Settle what a runner had to do, and free its slot."""
        errand, runner.errand = runner.errand, None
        assert errand is not None
        delivery = errand.delivery
        if errand.revocable is not None:
            verdict = self._unless_revoked(delivery, errand.revocable, verdict)
        await self._settle(delivery, verdict.outcome)  # noqa: ASYNC102  it shields itself
        self._release(delivery)
        self._tell(delivery, verdict, runner.began)
        if errand.ended is not None:
            errand.ended.outcome = verdict.outcome
            errand.ended.event.set()

    async def _attempt_revocable(self, delivery: Delivery, revocable: _Revocable) -> Verdict:
        """Run an attempt until it is revoked; what a handler raises when it is cancelled is part of the verdict."""
        verdict = Verdict(Return())
        try:
            with revocable.scope as scope:
                if not scope.cancel_called:
                    verdict = await self._pipeline.attempt(delivery)
        except Exception as error:
            if not revocable.scope.cancel_called:
                raise
            verdict = Verdict(Return(), error=error)
        return verdict  # noqa: ASYNC910  whoever settles it waits, if anybody has to

    def _unless_revoked(self, delivery: Delivery, revocable: _Revocable, verdict: Verdict) -> Verdict:
        """Return what becomes of an attempt that may have been revoked; from here on, it cannot be."""
        self._forget(revocable)
        if not revocable.scope.cancel_called:
            return verdict
        envelope = delivery.envelope
        self._hub.emit(
            DeliveryRevoked(
                component=self.component, delivery_id=envelope.id, subject=envelope.subject, error=verdict.error
            )
        )
        return Verdict(Ack(), verdict.pool)

    def _forget(self, revocable: _Revocable) -> None:
        same = self._revocables[revocable.name]
        same.remove(revocable)
        if not same:
            del self._revocables[revocable.name]

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> None:  # noqa: ASYNC910  it may end in an error
        """Settle, whatever happens around; a source that cannot is reported, and costs the others nothing."""
        try:
            if delivery.settle_nowait(outcome):
                return  # noqa: ASYNC910  a turn here would cost more than the rest
            with trio.fail_after(SETTLE_TIMEOUT, shield=True):
                await delivery.settle(outcome)
        except Exception as error:  # noqa: BLE001  the boundary of a transport
            self._hub.emit(SettleFailed(component=self.component, delivery_id=delivery.envelope.id, error=error))

    def _tell(self, delivery: Delivery, verdict: Verdict, began: float) -> None:
        is_usual = verdict.error is None and isinstance(verdict.outcome, Ack)
        kind = DeliveryDone if is_usual else DeliverySettled
        if self._hub.hears(kind):
            self._hub.emit(
                kind(
                    component=self.component,
                    worker=verdict.worker,
                    delivery_id=delivery.envelope.id,
                    subject=delivery.envelope.subject,
                    attempt=delivery.attempt,
                    outcome=verdict.outcome,
                    error=verdict.error,
                    seconds=trio.current_time() - began,
                )
            )
