"""Where dispatchers put deliveries: slots, back-pressure, settling exactly once, and cutting at the drain deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, TypeAlias, final

import attrs
import trio

from .._core.broker import Delivery
from .._core.envelope import Ack, Outcome, Return
from .._core.events import DeliveryDone, DeliveryRevoked, DeliverySettled, EventHub, SettleFailed
from .._core.intake import CURRENT_WORK
from .._core.stacks import where
from ..abc import Intake, Target, Work
from ..errors import DeliveryError
from .attempt import Verdict
from .bucket import Bucket
from .ends import done, settled
from .in_a_row import Rows
from .judge import owned
from .leash import Attempting
from .not_now import NotNow
from .runners import Ended, Errand, Revocable, Runners

Tap: TypeAlias = Callable[[str, Delivery, Outcome, float], object]
"""Is told of a delivery that was settled: its worker, it, the outcome, and the seconds that it took."""
SETTLE_TIMEOUT: Final = 5.0
"""Seconds that a source may take to note an outcome, while its dispatcher is not asked to stop."""
_RETURNED: Final = Verdict(Return())
TURN: Final = 32
"""Slots that a source may take before the other tasks have two turns: one in which what it brought begins, and one in
which what waited for nothing ends. So a broker that sends as much ahead as there are slots, 100 say, is told of a third
while a third is being handled and a third is on its way. In smaller pieces each message takes a larger share of a turn,
of what is written and of what is read; in larger ones the broker waits for us, and we for it."""


@contextmanager
def _shield(seconds: float) -> Generator[None]:
    with trio.fail_after(seconds, shield=True):
        yield


@final
@attrs.define(eq=False, repr=False)
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
    _shield: Callable[[float], AbstractContextManager[None]] = _shield
    """Keeps what is inside from being cancelled for so many seconds at most; raises `TooSlowError` after them."""
    _free: int = attrs.field(init=False)
    _taken: int = attrs.field(default=0, init=False)
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _idle: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _revocables: dict[str, list[Revocable]] = attrs.field(factory=dict[str, list[Revocable]], init=False)
    """By name; several where a source delivered the same thing twice."""
    _works: dict[Work, bool] = attrs.field(factory=dict["Work", bool], init=False)
    """What the pipeline does not run, and whether it takes a slot."""
    tap: Tap | None = attrs.field(default=None, init=False)
    """Is told of each delivery that was settled."""
    failures: Rows = attrs.field(factory=Rows, init=False)
    """Of its workers, in a row."""
    _not_now: NotNow = attrs.field(factory=NotNow, init=False)
    _rounds: int = attrs.field(default=0, init=False)
    """How often `TURN` slots were taken."""
    _entered: int = attrs.field(default=0, init=False)
    """How often one was taken without waiting."""
    _kept: int | None = attrs.field(default=None, init=False)
    """The slots that are free and not given out, while it is paused."""
    _apart: int = attrs.field(default=0, init=False)
    """How many of those take none."""
    _over: bool = attrs.field(default=False, init=False)
    _now: Callable[[], float] = attrs.field(init=False)
    """`trio.current_time`, without the way to it."""
    _runners: Runners = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._free = self._concurrency
        self._now = trio.lowlevel.current_clock().current_time
        self._runners = Runners(self.component, self._nursery, self._pipeline, self._end)

    @property
    def concurrency(self) -> int:
        """How many may be in flight."""
        return self._concurrency

    @property
    def prefetch(self) -> int:
        """How many a source should send ahead."""
        return self._concurrency if self._bucket is None else min(self._concurrency, self._bucket.before_long)

    @property
    def targets(self) -> Sequence[Target]:
        """The workers of the dispatcher."""
        return self._targets

    @property
    def in_flight(self) -> int:
        """How many slots are taken."""
        return self._concurrency - self._free - (self._kept or 0) + self._apart

    @property
    def taken(self) -> int:
        """How many slots have been taken so far. May be called from any thread."""
        return self._rounds * TURN + self._taken + self._entered

    @property
    def is_paused(self) -> bool:
        """Whether `pause` holds."""
        return self._kept is not None

    def pause(self) -> None:
        """Give out no slot until `resume`: what comes waits for one."""
        if self._kept is None:
            self._kept, self._free = self._free, 0

    def resume(self) -> None:
        """Give out slots again."""
        if self._kept is not None:
            self._free, self._kept = self._kept, None
            while self._free and self._waiting:
                self._free -= 1
                self._waiting.unpark()

    def under_way(self) -> list[tuple[Delivery, float, trio.lowlevel.Task]]:
        """Return the deliveries under way, when each was begun, and the task that works on it. From any thread."""
        return self._runners.under_way()

    def works(self) -> list[tuple[Work, bool]]:
        """Return what the pipeline does not run, and whether it takes a slot. From any thread."""
        return list(self._works.items())

    async def submit(self, delivery: Delivery, *, revocable_as: str = "") -> None:
        """Wait for a slot, then handle the delivery in a task of its own."""
        if revocable_as:
            await self._submit_revocable(delivery, Revocable(revocable_as))
            return
        await self._take(delivery)
        if self._over:
            await self._give_back(delivery)
        else:
            self._runners.start(Errand(delivery))

    def submit_nowait(self, delivery: Delivery, *, revocable_as: str = "") -> None:
        """Handle the delivery in a task of its own, if there is a slot for it and its source need not let others run."""
        if not self._free or self._taken >= TURN or self._bucket is not None or self._over:
            raise trio.WouldBlock
        self._taken += 1
        self._free -= 1
        revocable = Revocable(revocable_as) if revocable_as else None
        if revocable is not None:
            self._revocables.setdefault(revocable_as, []).append(revocable)
        self._runners.start(Errand(delivery, revocable=revocable))

    async def _submit_revocable(self, delivery: Delivery, revocable: Revocable) -> None:
        self._revocables.setdefault(revocable.name, []).append(revocable)
        try:
            await self._take(delivery)
        except BaseException:
            self._forget(revocable)
            raise
        if self._over:
            self._forget(revocable)
            await self._give_back(delivery)
        else:
            self._runners.start(Errand(delivery, revocable=revocable))

    def revoke(self, name: str) -> bool:
        """Cancel the handlers of what was submitted under a name; return whether there was any."""
        found = self._revocables.get(name, ())
        for revocable in found:
            revocable.scope.cancel()
        return bool(found)

    async def handle(self, delivery: Delivery) -> Outcome:
        """Wait for a slot, then handle the delivery in a task of its own and wait for the outcome."""
        await self._take(delivery)
        if self._over:
            await self._give_back(delivery)
            return Return()
        ended = Ended()
        self._runners.start(Errand(delivery, ended))
        await ended.event.wait()
        return ended.outcome

    def enter_nowait(self, work: Work, *, counts: bool = True) -> None:
        """Take a slot for what the pipeline does not run."""
        if counts:
            if not self._free:
                raise trio.WouldBlock
            self._free -= 1
        else:
            self._apart += 1
        self._entered += 1
        self._begin(work, counts=counts)

    async def enter(self, work: Work) -> None:
        """Wait for a slot for what the pipeline does not run."""
        await self._take(None)
        self._begin(work, counts=True)

    def _begin(self, work: Work, *, counts: bool) -> None:
        self._works[work] = counts
        CURRENT_WORK.set(work)
        if self._over:  # it came, or waited for its slot, until after the cut
            work.cut()

    def leave(self, work: Work) -> None:
        """Take note that it has ended."""
        CURRENT_WORK.set(None)
        if self._works.pop(work):
            self._free_slot()
        else:
            self._apart -= 1
            self._tell_if_idle()

    def give_up_slot(self, work: Work) -> bool:
        """Let others have the slot of what goes on without one; return whether it had one."""
        if not self._works.get(work):
            return False
        self._works[work] = False
        self._apart += 1
        self._free_slot()
        return True

    async def wait_idle(self) -> None:
        """Wait until nothing is in flight; what a handler has given back goes back at once from here on.

        Cancellation: Is a checkpoint.
        """
        await trio.lowlevel.checkpoint()
        self._not_now.end()
        while self.in_flight:
            await self._idle.park()

    def working_on(self, delivery: Delivery) -> None:
        """Note that the current task works on a delivery that another waits for."""
        self._runners.working_on(delivery)

    def cut_slots(self) -> None:
        """Cancel what runs in slots; submitted deliveries belong to the nursery and end with it.

        What is submitted from now on is returned to its source.
        """
        self._over = True
        self._not_now.end()
        for work in list(self._works):
            work.cut()

    def culprits(self) -> tuple[str, ...]:
        """Return what is in flight, each with the line of user code that it is at."""
        working = [(_named(work), work.task) for work in self._works]
        handled = [(_label(delivery), task) for delivery, task in self._runners.at_work()]
        return tuple(f"{label} at {where(task)}" for label, task in (*working, *handled))

    async def _take(self, delivery: Delivery | None) -> None:
        """Take a slot; if cancelled while waiting for it, return the delivery to its source."""
        try:
            if self._taken < TURN:
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                await self._let_others_run()
            self._taken += 1
            if self._free:
                self._free -= 1
            else:
                await self._waiting.park()  # whoever releases a slot hands it over
            if self._bucket is not None and delivery is not None:
                await self._wait_for_token(self._bucket, delivery.envelope.deadline)
        except trio.Cancelled:
            if delivery is not None:
                await self._return(delivery)  # noqa: ASYNC102  it shields itself
            raise

    async def _give_back(self, delivery: Delivery) -> None:  # noqa: ASYNC910  whoever took its slot has waited
        """Return a delivery that has its slot, but came after the cut."""
        await self._return(delivery)
        self._free_slot()

    async def _return(self, delivery: Delivery) -> None:  # noqa: ASYNC910  the source may take no waiting
        """Return to its source what was not begun."""
        is_settled = self._settle_nowait(delivery, _RETURNED)
        if is_settled is None:
            is_settled = await self._settle(delivery, _RETURNED)
        if is_settled:
            self._tell(delivery, _RETURNED, trio.current_time())

    async def _let_others_run(self) -> None:
        """Give them the two turns that `TURN` tells of."""
        self._taken = 0
        self._rounds += 1
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()

    async def _wait_for_token(self, bucket: Bucket, deadline: float) -> None:
        """Wait until one more may be started, or is late and will not be; if cancelled, give the slot back."""
        try:
            with trio.CancelScope(deadline=deadline):
                await bucket.take()
        except trio.Cancelled:
            self._free_slot()
            raise

    def _free_slot(self) -> None:
        if not self._free:
            if self._kept is not None:
                self._kept += 1
                self._tell_if_idle()
                return
            if self._waiting:
                self._waiting.unpark()
                return
        self._free += 1
        if self._free == self._concurrency:
            self._tell_if_idle()

    def _tell_if_idle(self) -> None:
        if self._idle and not self.in_flight:
            self._idle.unpark_all()

    def _end(self, errand: Errand, verdict: Verdict) -> Awaitable[None] | None:
        """Settle what was handled, and free its slot; return what is to be awaited for that, if anything is."""
        if verdict.is_not_now:
            return self._end_later(errand, verdict)
        if errand.revocable is not None:
            verdict = self._unless_revoked(errand.delivery, errand.revocable, verdict)
        if self._not_now.in_a_row:
            self._not_now.in_a_row = 0
        is_settled = self._settle_nowait(errand.delivery, verdict)
        if is_settled is None:
            return self._end_slowly(errand, verdict)
        self._ended(errand, verdict, is_settled=is_settled)
        return None

    async def _end_later(self, errand: Errand, verdict: Verdict) -> None:
        await self._not_now.wait()
        if errand.revocable is not None:  # it can be until here
            verdict = self._unless_revoked(errand.delivery, errand.revocable, verdict)
        await self._end_slowly(errand, verdict)

    async def _end_slowly(self, errand: Errand, verdict: Verdict) -> None:
        is_settled = await self._settle(errand.delivery, verdict)
        self._ended(errand, verdict, is_settled=is_settled)

    def _ended(self, errand: Errand, verdict: Verdict, *, is_settled: bool) -> None:
        self._free_slot()
        if is_settled:
            self._tell(errand.delivery, verdict, errand.began)
        if errand.ended is not None:
            errand.ended.outcome = verdict.outcome
            errand.ended.event.set()

    def _unless_revoked(self, delivery: Delivery, revocable: Revocable, verdict: Verdict) -> Verdict:
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

    def _forget(self, revocable: Revocable) -> None:
        same = self._revocables[revocable.name]
        same.remove(revocable)
        if not same:
            del self._revocables[revocable.name]

    def _settle_nowait(self, delivery: Delivery, verdict: Verdict) -> bool | None:
        """Settle if that takes no waiting, and return whether the source took it; None if it has to be waited for."""
        try:
            return delivery.settle_nowait(verdict.outcome) or None
        except BaseException as error:  # noqa: ASYNC103, BLE001  the boundary of a transport
            return self._report(delivery, verdict, owned(error))

    async def _settle(self, delivery: Delivery, verdict: Verdict) -> bool:  # noqa: ASYNC910  it may end in an error
        """Settle, whatever happens around, and return whether the source took it; costs the others nothing."""
        try:
            with self._shield(SETTLE_TIMEOUT):
                await delivery.settle(verdict.outcome)
        except BaseException as error:  # noqa: ASYNC103, BLE001  the boundary of a transport
            return self._report(delivery, verdict, owned(error))  # noqa: ASYNC910  as above
        return True

    def _report(self, delivery: Delivery, verdict: Verdict, error: Exception) -> bool:
        self._hub.emit(
            SettleFailed(
                component=self.component,
                delivery_id=delivery.envelope.id,
                error=error,
                outcome=verdict.outcome,
                raised=verdict.error,
            )
        )
        return False

    def _tell(self, delivery: Delivery, verdict: Verdict, began: float) -> None:
        is_usual = verdict.error is None and isinstance(verdict.outcome, Ack)
        if is_usual:
            self.failures.handled(verdict.worker)
        elif verdict.error is not None:
            self.failures.failed(verdict.worker, verdict.error, trio.current_time())
        elif verdict.is_not_now:
            self.failures.failed(verdict.worker, DeliveryError("its handler returns Return()"), trio.current_time())
        if self.tap is not None:
            self.tap(verdict.worker, delivery, verdict.outcome, trio.current_time() - began)
        if hooks := self._hub.hears(DeliveryDone if is_usual else DeliverySettled):
            make = done if is_usual else settled
            self._hub.emit_to(hooks, make(self.component, delivery, verdict, began, self._now()))


def _named(work: Work) -> str:
    return f"worker/{work.worker} {work.label}" if work.worker else work.label


def _label(delivery: Delivery) -> str:
    return f"delivery {delivery.envelope.id} ({delivery.envelope.subject[:100]!r})"
