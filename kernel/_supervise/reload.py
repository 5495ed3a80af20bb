"""A service that becomes what its manifest says now: only what has changed is stopped and started.

One reload at a time; what is asked for meanwhile is done once more afterwards, and not as often as it was asked for. A
manifest that is wrong changes nothing. One that cannot start is taken back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, final

import attrs
import trio

from .._core.changes import Changes, changes, fixed
from .._core.events import KernelReloaded, ReloadFailed
from .._core.lifecycle import State
from .._core.spec import DispatcherSpec, Plan
from ..errors import PlanError, UnavailableError
from .reading import Read, Reader
from .renewal import renew
from .step import Step, Steps

PAUSE: Final = 0.25
"""Seconds between two readings of the manifest, at least."""


def stops(why: str) -> str:
    """Return what somebody is told who asks for a reload of a service that stops."""
    return f"the service stops{f': {why}' * bool(why)}"


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

    def end(self, why: str) -> None:
        """Tell who waits for it; if nothing has come of it, the service stops."""
        if self.result is None and self.error is None:
            self.error = UnavailableError(stops(why))
        self.done.set()


@final
@attrs.define(eq=False, repr=False)
class Reloading:
    """The reloads of one service."""

    steps: Steps
    again: Again | None
    stop_reason: Callable[[], str]
    """Why the service stops, once it does."""
    _reader: Reader = attrs.field(factory=Reader, init=False)
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    _wishes: list[_Wish] = attrs.field(factory=list[_Wish], init=False)
    _read_at: float = attrs.field(default=-math.inf, init=False)
    """When the manifest was read."""
    _works: bool = attrs.field(default=False, init=False)
    _over: bool = attrs.field(default=False, init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _idle: trio.Event = attrs.field(factory=trio.Event, init=False)

    def begin(self, nursery: trio.Nursery) -> None:
        """Say that there is something to reload, and what to do that in."""
        self._nursery = nursery
        self.steps.begin(nursery)
        if self._wishes:
            self._work_soon()

    async def end(self) -> None:
        """End what is under way, and refuse what is asked for from now on: the service stops.

        Cancellation: Is a checkpoint.
        """
        self._over = True
        self.steps.end()
        self._scope.cancel()
        await trio.lowlevel.checkpoint()
        while self._works:
            await self._idle.wait()
        while self._wishes:
            self._wishes.pop().end(self.stop_reason())

    def ask(self, plan: Plan | None) -> _Wish:
        """Have a reload done soon; those that are asked for before it begins, and are the same, are one.

        Raises:
            UnavailableError: if the service stops.
            ValueError: if nobody has said where its manifest is.
        """
        if self._over:
            raise UnavailableError(stops(self.stop_reason()))
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
        return plan, self._with_lost(plan, changes(self.steps.tree.plan, plan, stale=self._stale(files)))

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
        began, hub = trio.current_time(), self.steps.tree.hub
        try:
            step = await self._planned(wish)
            if step is not None:
                async with self.steps.lock:
                    result = await self.steps.take(step)
                refused = await renew(self.steps.tree, but=step.started)
                if not self.stop_reason():  # which the step itself may be the reason of
                    wish.result = attrs.evolve(result, refused=refused, seconds=trio.current_time() - began)
                    hub.emit(wish.result)
        finally:
            wish.end(self.stop_reason())

    # --- before anything is done --------------------------------------------------------------------------------

    async def _planned(self, wish: _Wish) -> Step | None:
        """Return what is to be done; None if nothing can be, which is told."""
        try:
            return await self._plan(wish)
        except Exception as error:  # noqa: BLE001  whatever is wrong with a new plan, the service goes on as it was
            wish.error = error
            self.steps.tree.hub.emit(ReloadFailed(component="kernel", error=error))
            return None  # noqa: ASYNC910  it has waited

    async def _plan(self, wish: _Wish) -> Step:
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
        found = changes(self.steps.tree.plan, plan, stale=self._stale(files))
        return Step(
            plan=plan,
            protocols=self.steps.tree.built_protocols(plan, found.protocols),
            changes=self._with_lost(plan, found),
            files=files,
        )

    async def _allowed(self, plan_of: Callable[[], Plan]) -> Read:
        """Return what is read, unless it says what a service that runs cannot take over."""
        plan, files = await self._reader.read(plan_of, self.steps.tree.plan)
        if problems := fixed(self.steps.tree.plan, plan):
            raise PlanError(problems)
        return plan, files

    def _stale(self, files: Mapping[str, tuple[str, ...]]) -> set[str]:
        return {id_ for id_, stamps in files.items() if self.steps.files.get(id_, stamps) != stamps}

    def _with_lost(self, plan: Plan, found: Changes) -> Changes:
        """Return changes with what has failed since something else had, of which something is not as it was.

        That is what fails as a whole, a service inside or a group, and the dispatchers whose workers were gone.
        """
        tree = self.steps.tree
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
