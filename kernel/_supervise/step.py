"""One step of a service from a plan to another: what has changed stops and starts. What cannot start is taken back."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, final

import attrs
import trio

from .._core.changes import Changes
from .._core.events import ComponentFailed, Event, KernelReloaded, StateChanged
from .._core.lifecycle import FINAL, State
from .._core.spec import DispatcherSpec, DriverSpec, Plan, Zone
from .._core.stacks import where
from .._core.words import listed
from .._delivery.failure import describe
from ..abc import Broker, Protocol, Topology
from ..errors import SendError, UnavailableError
from .child import Child, obstacles_of, serves
from .files import files_of
from .leftovers import leftovers, remains
from .lives import declare
from .stages import FAILED, Stages
from .tree import Tree

REASON: Final = "reload"
"""What hooks are told as the reason of a stop."""
_NO_WAY_BACK: Final = "a reload could not be taken back"


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Step:
    """From one plan to another."""

    plan: Plan
    protocols: Mapping[str, Protocol]
    changes: Changes
    files: Mapping[str, tuple[str, ...]]

    @property
    def stopped(self) -> frozenset[str]:
        """Ids of what goes down."""
        return frozenset({*self.changes.restarted, *self.changes.removed})

    @property
    def started(self) -> frozenset[str]:
        """Ids of what comes up."""
        return frozenset({*self.changes.restarted, *self.changes.added})


@final
@attrs.define(eq=False, repr=False)
class Steps:
    """The steps of one service, one at a time."""

    tree: Tree
    stages: Stages
    is_risen: Callable[[], bool]
    """Whether the stages on the way up are over."""
    adopt: Callable[[Plan], None]
    """Called when another plan is in force."""
    note_ready: Callable[[], None]
    fail: Callable[[str], None]
    """Stops the service, for a reason."""
    lock: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    """Held while components are stopped or started by plan, and while they do something at a stage."""
    files: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict[str, tuple[str, ...]], init=False)
    """Id of a component that reads files -> what tells whether they have changed."""
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    _rising: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """In which what was started is waited for after the answer was given."""
    _unrisen: set[str] = attrs.field(factory=set[str], init=False)
    """Ids of components that have still to do something once all is up."""
    _tried: set[Child] = attrs.field(factory=set[Child], init=False)
    """Those that were started by a step that can still be taken back."""

    def begin(self, nursery: trio.Nursery) -> None:
        """Say what there is to do something in, and that the components have been started."""
        self._nursery = nursery
        self.files = files_of(self.tree.plan)

    def end(self) -> None:
        """Wait no longer for what was started."""
        self._rising.cancel()

    def takes(self, child: Child) -> bool:
        """Whether the failure of a child for good is a failure of a step, which is taken back."""
        return child in self._tried

    async def take(self, step: Step) -> KernelReloaded:
        """Become what another plan says; return what was done, once all is up or is known not to be."""
        self._rising.cancel()
        self._rising = trio.CancelScope()
        was = Step(
            plan=self.tree.plan,
            protocols=self.tree.protocols,
            changes=_undoing(step.changes),
            files=self.files,
        )
        tried = step.plan
        is_risen = await self._apply(step, was)
        failed = await self._settle(step) if is_risen else {}
        if not is_risen or any(child.state is State.FAILED and child.essential for child in self._tried):
            failed = failed or {"kernel": FAILED}
            await self._take_back(was, is_applied=is_risen)
            step = was
        self._tried.clear()
        self._release(step)
        done, undone = step.changes, step is was
        failed |= self._hanging(step)
        left = await self._retire(tried if undone else was.plan, step)
        self._finish_soon(step)
        return KernelReloaded(
            component="kernel",
            changed=done.changed,
            added=done.removed if undone else done.added,
            removed=done.added if undone else done.removed,
            restarted=done.restarted,
            failed=tuple(failed.items()),
            left=left,
            undone=undone,
        )

    async def _take_back(self, was: Step, *, is_applied: bool) -> None:
        """Be what the service was before; if that cannot be, it stops."""
        self._forget_errors()
        if is_applied and not await self._apply(was, None):
            self.fail(_NO_WAY_BACK)
        await self._settle(was)
        children = [child for id_ in was.started for child in self.tree.children(id_)]
        if any(child.state is State.FAILED and child.essential for child in children):
            self.fail(_NO_WAY_BACK)  # as where the new one hangs, and leaves no place for the old

    def _forget_errors(self) -> None:
        """Forget why what is taken back has failed: the service goes on, and does not end for it."""
        tried = [child.error for child in self._tried if child.error is not None]
        errors = self.tree.supervisor.errors
        errors[:] = [error for error in errors if not any(error is one for one in tried)]
        self._tried.clear()

    async def _apply(self, step: Step, was: Step | None) -> bool:
        """Go to another plan; return whether that went well, else everything is as it was.

        Args:
            step: What to do.
            was: How to take it back where a stage fails; None if it cannot be.
        """
        tree, stages, supervisor = self.tree, self.stages, self.tree.supervisor
        tree.masks.learn(step.plan.secrets)
        known = {id_ for spec in step.plan.components.values() for id_ in tree.ids(spec)}
        down = [child for id_ in step.stopped for child in tree.children(id_)]
        back = [child for child in down if child.id in known]
        gone = [child for child in down if child.id not in known]
        with self._telling():
            await stages.fall(Zone.ALIVE, REASON, step.stopped)
        tree.replaced = step.stopped
        for pool in tree.pools_of(step.started):
            pool.settle(returns=True)
        try:
            drain_until = trio.current_time() + tree.plan.drain_timeout
            async with supervisor.changing(back, gone=gone, drain_until=drain_until):
                with self._telling():
                    await stages.fall(Zone.LOOP, REASON, step.stopped)
                self._become(step, was is not None)
                await self._declare(step)
                with self._telling():
                    is_risen = await stages.rise(Zone.LOOP, step.started)
                if not is_risen and was is not None:
                    self._become(was, is_trial=False)
                    await stages.rise(Zone.LOOP, was.started)
        finally:
            tree.release()
        return is_risen  # noqa: ASYNC910  it has waited

    @contextmanager
    def _telling(self) -> Generator[None]:
        """Have what fails at a stage inside told, as all that fails is, and not kept for the end of the service."""
        stages, hub = self.stages, self.tree.hub
        kept = stages.failed
        stages.failed = lambda hook, error: hub.emit(
            ComponentFailed(component=hook.component, error=error, restart_in=None)
        )
        try:
            yield
        finally:
            stages.failed = kept

    def _become(self, step: Step, is_trial: bool) -> None:  # noqa: FBT001
        tree = self.tree
        anew = {id_ for id_ in step.started if id_ in step.changes.changed or not tree.has_ended(id_)}
        tree.change(step.plan, step.protocols, anew)
        self.stages.renew(step.plan.stages, anew)
        self.adopt(step.plan)
        self.files = step.files
        self._tried = {child for id_ in anew for child in tree.children(id_)} if is_trial else set()

    async def _declare(self, step: Step) -> None:
        """Make exist what new dispatchers need of brokers that stay, before anybody can send through them."""
        await trio.lowlevel.checkpoint()
        components = self.tree.plan.components
        fed = {
            spec.driver for id_, spec in components.items() if id_ in step.started and isinstance(spec, DispatcherSpec)
        }
        for id_ in fed - step.started - {None}:
            driver = components[id_ or ""]
            if isinstance(driver, DriverSpec) and self.tree.value(id_) is not None:
                with trio.move_on_after(driver.start_timeout):
                    await declare(self.tree, driver, self.tree.value(id_), only=step.started)

    async def _retire(self, old: Plan, step: Step) -> tuple[str, ...]:
        """Tell brokers that go on what nobody asks for any more; return what is left there, with what to do.

        Only once it is certain which plan is in force: until then, whatever is sent goes to the queues of both.
        """
        await trio.lowlevel.checkpoint()
        left: list[str] = []
        for id_, topology in leftovers(old, step.plan, step.changes).items():
            told = None if id_ in step.stopped else await self._retire_at(id_, topology)
            left += [f"{id_}: {text}" for text in (remains(old, id_, topology) if told is None else told)]
        return tuple(left)

    async def _retire_at(self, id_: str, topology: Topology) -> Sequence[str] | None:
        broker, spec = self.tree.value(id_), self.tree.plan.components[id_]
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(spec.start_timeout), suppress(SendError, UnavailableError):
            return await broker.retire(topology) if isinstance(broker, Broker) else None
        return None

    # --- afterwards -----------------------------------------------------------------------------------------------

    async def _settle(self, step: Step) -> dict[str, str]:
        """Wait until what was started is up, or is known not to be; return what is not, each with the reason."""
        children = [child for id_ in step.started for child in self.tree.children(id_)]
        patience = max((child.start_timeout for child in children), default=0.0)
        errors = {child: child.error for child in children}
        moved = trio.lowlevel.ParkingLot()

        def hear(_event: Event) -> None:
            moved.unpark_all()

        def is_settled(child: Child) -> bool:
            if (
                serves(child)
                or child.left_behind
                or child.state is State.FAILED
                or child.error is not errors.get(child)
            ):
                return True
            return any(one not in errors or (is_settled(one) and not serves(one)) for one in obstacles_of(child))

        await trio.lowlevel.checkpoint()
        forget = self.tree.hub.subscribe(hear, StateChanged, ComponentFailed)
        try:
            with trio.move_on_after(patience):
                while not all(map(is_settled, children)):
                    await moved.park()
        finally:
            forget()
        return {child.id: _why(child) for child in children if not serves(child)}

    def _hanging(self, step: Step) -> dict[str, str]:
        """Return what was to end and does not, with where it is; it is among the children until it has ended."""
        known = {id_ for spec in step.plan.components.values() for id_ in self.tree.ids(spec)}
        everyone = self.tree.supervisor.children.values()
        return {
            child.id: _why(child)
            for child in everyone
            if child.left_behind and child.id not in known and child.id.partition("[")[0] in step.stopped
        }

    def _release(self, step: Step) -> None:
        for pool in self.tree.pools_of(step.started):
            pool.settle(returns=False)

    def _finish_soon(self, step: Step) -> None:
        """Do what is to be done when all is up, if that is not done by the start of the service."""
        self._unrisen = (self._unrisen | step.started) & self.tree.plan.components.keys()
        if self.is_risen() and self._nursery is not None:
            self.tree.is_held = self.stages.has(Zone.ALIVE, rising=True, only=self._unrisen)
            if self.tree.is_held:
                self._nursery.start_soon(self._finish, self._rising)

    async def _finish(self, scope: trio.CancelScope) -> None:
        with scope:
            for child in [child for id_ in self._unrisen for child in self.tree.children(id_)]:
                while not serves(child) and child.state not in FINAL:
                    await child.changed.park()
            async with self.lock:
                await self._rise()
        await trio.lowlevel.checkpoint()

    async def _rise(self) -> None:
        if not await self.stages.rise(Zone.ALIVE, self._unrisen):
            self.fail(FAILED)
            return
        self._unrisen.clear()
        self.tree.is_held = False
        self.note_ready()


def _undoing(found: Changes) -> Changes:
    return attrs.evolve(found, added=found.removed, removed=found.added)


def _why(child: Child) -> str:
    """Return the state of what is not up, and why it is not."""
    if child.left_behind:
        place = f", at {where(child.task)}" if child.task is not None else ""
        return f"left behind: it did not close within stop_timeout = {child.stop_timeout:g} s{place}"
    waits_for = listed(dict.fromkeys(one.id for one in obstacles_of(child)))
    error = "" if child.error is None else describe(child.error, child.mask)
    reasons = [
        child.reason,
        "" if error in child.reason else error,
        f"waits for {waits_for}" if waits_for != "nothing" else "",
    ]
    return ": ".join([child.state.value, *(reason for reason in reasons if reason)])
