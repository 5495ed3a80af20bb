"""A service that becomes what its manifest says now: only what has changed is stopped and started.

One reload at a time; what is asked for meanwhile is done once more afterwards, and not as often as it was asked for. A
manifest that is wrong changes nothing. One that cannot start is taken back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Final, final

import attrs
import trio

from .._core.changes import Changes, changes, fixed
from .._core.events import ComponentFailed, Event, KernelReloaded, ReloadFailed, StateChanged
from .._core.lifecycle import FINAL, State
from .._core.spec import DispatcherSpec, DriverSpec, Plan, WorkerSpec, Zone
from .._core.words import listed
from .._delivery.failure import describe
from ..abc import Protocol
from ..errors import PlanError, UnavailableError
from .child import Child, obstacles_of, serves
from .files import files_of
from .lives import declare
from .stages import FAILED, Stages
from .tree import Tree

REASON: Final = "reload"
"""What hooks are told as the reason of a stop."""
PAUSE: Final = 0.25
"""Seconds between two readings of the manifest, at least."""
_NO_WAY_BACK: Final = "a reload could not be taken back"
_STOPS: Final = "the service stops"


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Again:
    """Where a service has its plan from."""

    read: Callable[[], Plan]
    """Reads the manifest again; called in a thread. Raises `InvalidError`."""
    taken: Callable[[Plan], object] = attrs.field(default=lambda _plan: None)
    """Called in the event loop when a plan is in force, by what belongs to the service and is no component."""


@final
@attrs.define(eq=False, repr=False)
class _Wish:
    """A reload that somebody waits for."""

    plan: Plan | None
    """What is to run; None for what the manifest says."""
    done: trio.Event = attrs.field(factory=trio.Event, init=False)
    result: KernelReloaded | None = attrs.field(default=None, init=False)
    error: Exception | None = attrs.field(default=None, init=False)

    def end(self) -> None:
        """Tell who waits for it; if nothing has come of it, the service stops."""
        if self.result is None and self.error is None:
            self.error = UnavailableError(_STOPS)
        self.done.set()


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class _Step:
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
class Reloading:
    """The reloads of one service."""

    tree: Tree
    stages: Stages
    again: Again | None
    is_risen: Callable[[], bool]
    """Whether the stages on the way up are over."""
    adopt: Callable[[Plan], None]
    """Called when another plan is in force."""
    note_ready: Callable[[], None]
    fail: Callable[[str], None]
    """Stops the service, for a reason."""
    lock: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    """Held while components are stopped or started by plan, and while they do something at a stage."""
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    _wishes: list[_Wish] = attrs.field(factory=list[_Wish], init=False)
    _read_at: float = attrs.field(default=-math.inf, init=False)
    """When the manifest was read."""
    _files: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict[str, tuple[str, ...]], init=False)
    """Id of a component that reads files -> what tells whether they have changed."""
    _works: bool = attrs.field(default=False, init=False)
    _over: bool = attrs.field(default=False, init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _idle: trio.Event = attrs.field(factory=trio.Event, init=False)
    _rising: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """In which what was started is waited for after the answer was given."""
    _unrisen: set[str] = attrs.field(factory=set[str], init=False)
    """Ids of components that have still to do something once all is up."""
    _tried: set[Child] = attrs.field(factory=set[Child], init=False)
    """Those that were started by a reload that can still be taken back."""

    def begin(self, nursery: trio.Nursery) -> None:
        """Say that there is something to reload, and what to do that in."""
        self._nursery = nursery
        self._files = files_of(self.tree.plan)
        if self._wishes:
            self._work_soon()

    async def end(self) -> None:
        """End what is under way, and refuse what is asked for from now on: the service stops.

        Cancellation: Is a checkpoint.
        """
        self._over = True
        self._rising.cancel()
        self._scope.cancel()
        await trio.lowlevel.checkpoint()
        while self._works:
            await self._idle.wait()
        while self._wishes:
            self._wishes.pop().end()

    def ask(self, plan: Plan | None) -> _Wish:
        """Have a reload done soon; those that are asked for before it begins, and are the same, are one.

        Raises:
            UnavailableError: if the service stops.
            ValueError: if nobody has said where its manifest is.
        """
        if self._over:
            raise UnavailableError(_STOPS)
        if plan is None and self.again is None:
            raise ValueError("this service does not know its manifest: start it by `kernel run`, or give the plan")
        if plan is None and self._wishes and self._wishes[-1].plan is None:
            return self._wishes[-1]
        self._wishes.append(_Wish(plan))
        self._work_soon()
        return self._wishes[-1]

    async def reload(self, plan: Plan | None) -> KernelReloaded:
        """Have a reload done, and wait for it."""
        wish = self.ask(plan)
        await wish.done.wait()
        if wish.error is not None:
            raise wish.error
        assert wish.result is not None  # one of both is there
        return wish.result

    async def preview(self) -> tuple[Plan, Changes]:
        """Return what a reload would have run, and what it would do."""
        if self.again is None:
            raise ValueError("this service does not know its manifest")
        plan, files = await self._allowed(self.again.read)
        return plan, self._with_lost(plan, changes(self.tree.plan, plan, stale=self._stale(files)))

    def takes(self, child: Child) -> bool:
        """Whether the failure of a child for good is a failure of a reload, which is taken back."""
        return child in self._tried

    # --- one after the other ------------------------------------------------------------------------------------

    def _work_soon(self) -> None:
        if self._nursery is not None and not self._works:
            self._works, self._idle = True, trio.Event()
            self._nursery.start_soon(self._work, name="reload")

    async def _work(self) -> None:
        self._scope = trio.CancelScope()
        try:
            with self._scope:
                while self._wishes:
                    await self._pause()
                    # Whoever asks from here on may mean what the manifest says later than it is read now.
                    await self._fulfil(self._wishes.pop(0))
        finally:
            self._works = False
            self._idle.set()
        await trio.lowlevel.checkpoint()

    async def _pause(self) -> None:
        """Wait until the manifest may be read again, so that a storm of signals is a few reloads."""
        if self._wishes[0].plan is None:
            await trio.sleep_until(self._read_at + PAUSE)
            self._read_at = trio.current_time()
        await trio.lowlevel.checkpoint()

    async def _fulfil(self, wish: _Wish) -> None:
        began, hub = trio.current_time(), self.tree.hub
        try:
            step = await self._planned(wish)
            if step is not None:
                async with self.lock:
                    result = await self._carry_out(step)
                wish.result = attrs.evolve(result, seconds=trio.current_time() - began)
                hub.emit(wish.result)
        finally:
            wish.end()

    # --- before anything is done --------------------------------------------------------------------------------

    async def _planned(self, wish: _Wish) -> _Step | None:
        """Return what is to be done; None if nothing can be, which is told."""
        try:
            return await self._plan(wish)
        except Exception as error:  # noqa: BLE001  whatever is wrong with a new plan, the service goes on as it was
            wish.error = error
            self.tree.hub.emit(ReloadFailed(component="kernel", error=error))
            return None  # noqa: ASYNC910  it has waited

    async def _plan(self, wish: _Wish) -> _Step:
        """Return what is to be done.

        Raises:
            InvalidError: if the manifest is wrong, or says what a service that runs cannot take over.
            StartupError: if a protocol cannot be built.
        """
        given, again = wish.plan, self.again
        if given is None:
            assert again is not None  # `ask` has looked
            plan, files = await self._allowed(again.read)
        else:
            plan, files = await self._allowed(lambda: given)
        found = changes(self.tree.plan, plan, stale=self._stale(files))
        return _Step(
            plan=plan,
            protocols=self.tree.built_protocols(plan, found.protocols),
            changes=self._with_lost(plan, found),
            files=files,
        )

    async def _allowed(self, plan_of: Callable[[], Plan]) -> tuple[Plan, Mapping[str, tuple[str, ...]]]:
        """Return what `_read` returns, unless it says what a service that runs cannot take over."""
        plan, files = await self._read(plan_of)
        if problems := fixed(self.tree.plan, plan):
            raise PlanError(problems)
        return plan, files

    def _stale(self, files: Mapping[str, tuple[str, ...]]) -> set[str]:
        return {id_ for id_, stamps in files.items() if self._files.get(id_, stamps) != stamps}

    async def _read(self, plan_of: Callable[[], Plan]) -> tuple[Plan, Mapping[str, tuple[str, ...]]]:
        """Return a plan, with all imported that it runs with, and what tells whether files have changed."""
        known = {spec.cls for spec in self.tree.plan.components.values() if not isinstance(spec, WorkerSpec)}

        def read() -> tuple[Plan, Mapping[str, tuple[str, ...]]]:
            plan = plan_of()
            for spec in plan.components.values():
                if not isinstance(spec, WorkerSpec) and spec.cls not in known:
                    spec.cls.preload()
            return plan, files_of(plan)

        return await trio.to_thread.run_sync(read, abandon_on_cancel=True)

    def _with_lost(self, plan: Plan, found: Changes) -> Changes:
        """Return changes with what has failed since something else had, of which something is not as it was.

        That is what fails as a whole, a service inside or a group, and the dispatchers whose workers were gone.
        """
        tree = self.tree
        mended = set[object]().union(
            *(tree.failed_around(id_) for id_ in (*found.restarted, *found.added, *found.removed))
        )
        known = [id_ for id_ in plan.components if tree.children(id_)]
        back = {*found.restarted, *(id_ for id_ in known if mended and mended & tree.failed_around(id_))}
        lost = {
            id_
            for id_, spec in plan.components.items()
            if isinstance(spec, DispatcherSpec)
            and any(child.state is State.FAILED for child in tree.children(id_))
            and any(f"worker/{name}" in back for name in spec.workers)
        }
        return attrs.evolve(found, restarted=tuple(id_ for id_ in plan.components if id_ in back | lost))

    # --- doing it -------------------------------------------------------------------------------------------------

    async def _carry_out(self, step: _Step) -> KernelReloaded:
        self._rising.cancel()
        self._rising = trio.CancelScope()
        was = _Step(
            plan=self.tree.plan,
            protocols=self.tree.protocols,
            changes=_undoing(step.changes),
            files=self._files,
        )
        is_risen = await self._apply(step, was)
        failed = await self._settle(step) if is_risen else {}
        if not is_risen or any(child.state is State.FAILED and child.essential for child in self._tried):
            failed = failed or {"kernel": FAILED}
            await self._take_back(was, is_applied=is_risen)
            step = was
        self._tried.clear()
        self._release(step)
        self._finish_soon(step)
        done, undone = step.changes, step is was
        return KernelReloaded(
            component="kernel",
            changed=done.changed,
            added=done.removed if undone else done.added,
            removed=done.added if undone else done.removed,
            restarted=done.restarted,
            failed=tuple(failed.items()),
            undone=undone,
        )

    async def _take_back(self, was: _Step, *, is_applied: bool) -> None:
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

    async def _apply(self, step: _Step, was: _Step | None) -> bool:
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

    def _become(self, step: _Step, is_trial: bool) -> None:  # noqa: FBT001
        tree = self.tree
        anew = {id_ for id_ in step.started if id_ in step.changes.changed or not tree.has_ended(id_)}
        tree.change(step.plan, step.protocols, anew)
        self.stages.renew(step.plan.stages, anew)
        self.adopt(step.plan)
        self._files = step.files
        self._tried = {child for id_ in anew for child in tree.children(id_)} if is_trial else set()

    async def _declare(self, step: _Step) -> None:
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

    # --- afterwards -----------------------------------------------------------------------------------------------

    async def _settle(self, step: _Step) -> dict[str, str]:
        """Wait until what was started is up, or is known not to be; return what is not, each with the reason."""
        children = [child for id_ in step.started for child in self.tree.children(id_)]
        patience = max((child.start_timeout for child in children), default=0.0)
        errors = {child: child.error for child in children}
        moved = trio.lowlevel.ParkingLot()

        def hear(_event: Event) -> None:
            moved.unpark_all()

        def is_settled(child: Child) -> bool:
            if serves(child) or child.state is State.FAILED or child.error is not errors.get(child):
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

    def _release(self, step: _Step) -> None:
        for pool in self.tree.pools_of(step.started):
            pool.settle(returns=False)

    def _finish_soon(self, step: _Step) -> None:
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
    waits_for = listed(dict.fromkeys(one.id for one in obstacles_of(child)))
    error = "" if child.error is None else describe(child.error)
    reasons = [
        child.reason,
        "" if error in child.reason else error,
        f"waits for {waits_for}" if waits_for != "nothing" else "",
    ]
    return ": ".join([child.state.value, *(reason for reason in reasons if reason)])
