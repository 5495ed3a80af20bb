"""Starts children in the order of their dependencies, watches them, and applies restart policies.

Every child has a keeper task. A keeper waits until what its child depends on is up, lives one life of the child, and
asks `policies` what follows. Order needs no other bookkeeping: a child starts when what it `uses` and comes `after`
is up, and stops when those that use it or come after it are down. A second task watches each life, which may heed
nothing. The supervisor knows no kind of component.

One file, since it is one thought: what is left of it when all that can be said of a child alone stands in `child`.

Source: OTP supervisor(3) for policies, intensity and strategies; here the rest in `rest_for_one` is by default what
really depends on the failed child.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import assert_never, final

import attrs
import trio

from .._core.events import ComponentFailed, EventHub, StateChanged, StopTimedOut
from .._core.lifecycle import ALIVE, FINAL, USABLE, State, moved
from .._core.policies import Ending, Verdict, verdict
from .._core.stacks import where
from .._delivery.failure import describe
from ..errors import DependencyError
from .child import (
    Child,
    affected,
    cause,
    ending,
    failing_with,
    healthy_for,
    holding,
    is_free_to_start,
    left_behind,
    lost_with,
    obstacles,
    parted,
    restarted_whole,
    serves,
    sleep_unless_retired,
    standing_on,
    worn_out,
)
from .life import Life
from .unit import Unit, unnoticed


@final
@attrs.define(eq=False, repr=False)
class Supervisor:
    """Keeps the children of one service."""

    hub: EventHub
    on_failure: Callable[[Child], None]
    """Called when an essential child has failed for good."""
    on_finished: Callable[[], None]
    """Called when no child is left that works by itself."""
    on_ready: Callable[[], None]
    """Called whenever a child has moved, or has just been started, and no essential one is missing."""
    on_unit_finished: Callable[[Unit[Child]], None] = unnoticed
    """As `on_finished`, for a service inside."""
    children: dict[str, Child] = attrs.field(factory=dict[str, Child], init=False)
    errors: list[BaseException] = attrs.field(factory=list[BaseException], init=False)
    """Why essential children failed, and what was raised while stopping."""
    cut: bool = attrs.field(default=False, init=False)
    """Whether a stop had to cancel or leave behind something."""
    missing: set[Child] = attrs.field(factory=set[Child], init=False)
    """The essential children that are not ready, but for those that are done."""
    is_started: bool = attrs.field(default=False, init=False)
    _hastened: bool = attrs.field(default=False, init=False)
    _working: set[Child] = attrs.field(factory=set[Child], init=False)
    """Those that work by themselves and have not ended."""
    _changing: bool = attrs.field(default=False, init=False)
    """Whether children are being replaced, so that it says nothing that none is left for a moment."""
    _nursery: trio.Nursery = attrs.field(init=False)

    def add(self, child: Child) -> Child:
        """Take a child, which depends only on children that were added before."""
        self.children[child.id] = child
        if child.group is not None and child not in child.group.members:
            child.group.members.append(child)
        if child.essential:
            self.missing.add(child)
        return child

    def start(self, nursery: trio.Nursery) -> None:
        """Start every keeper in the nursery; they end when their children have ended for good."""
        self.is_started = True
        self._working = {child for child in self.children.values() if not child.resident}
        self._count_in_units()
        self._nursery = nursery
        for child in self.children.values():
            nursery.start_soon(self._keep, child, name=child.id)
        if not self.missing:
            self.on_ready()

    async def stop(self, *, drain_until: float) -> None:
        """Stop all children in reverse order of their start, at the same time where nothing forbids it.

        Returns when each has ended for good or was left behind.

        Cancellation: Is a checkpoint. If cancelled, children have been asked to stop only in part.
        """
        await trio.lowlevel.checkpoint()
        everyone = list(self.children.values())
        for child in everyone:
            child.retire()
            if child.accepts and child.life is not None:
                child.life.stop_accepting()
        await self._stop_all(everyone, drain_until=drain_until)
        for child in everyone:
            while not (child.state in FINAL or child.left_behind):
                await child.changed.park()
        self.cut |= any(child.left_behind for child in everyone)

    def hasten(self) -> None:
        """End every drain of a stop, also those that have not begun."""
        self._hastened = True
        for child in self.children.values():
            if child.life is not None and child.life.stopping:
                child.life.request_stop(drain_until=-math.inf)

    def restart(self, children: Collection[Child], *, drain_until: float) -> None:
        """Stop children, with all that restart with them, and start them again; who waits for its start has it now.

        Returns at once.
        """
        for child in children:
            child.hurried = True
            child.changed.unpark_all()
        alive = {one: None for child in children if child.life is not None for one in (child, *affected(child))}
        if alive:
            self._nursery.start_soon(partial(self._stop_all, list(alive), drain_until=drain_until))

    @asynccontextmanager
    async def changing(
        self, children: Collection[Child], *, gone: Collection[Child], drain_until: float
    ) -> AsyncGenerator[None]:
        """Stop children in order, keep them down while inside, and start them again.

        Args:
            children: With all that restart with them.
            gone: Those that do not start again.
            drain_until: Until when what is in flight may finish.

        Cancellation: Is a checkpoint. If cancelled, those that are not gone start again as they were.
        """
        for child in gone:
            child.retire()
        for child in children:
            child.hurried = True
            child.changed.unpark_all()
        self._changing, had_work = True, bool(self._working)
        try:
            with holding(children):
                await self._stop_all([*children, *gone], drain_until=drain_until)
                for child in gone:
                    while not (child.state in FINAL or child.left_behind):
                        await child.changed.park()
                yield
        finally:
            self._changing = False
        if had_work and not self._working:
            self.on_finished()

    def adopt(self, children: Sequence[Child], fresh: Collection[Child]) -> None:
        """Have other children from now on, whose dependencies have been told.

        Args:
            children: All, in start order.
            fresh: Those of them that are new.
        """
        self.children = {child.id: child for child in children}
        self.missing = {child for child in children if child.essential and not serves(child)}
        self._working = {
            child for child in children if not (child.resident or child.state in FINAL or child.left_behind)
        }
        self._count_in_units()
        for child in fresh:
            self._nursery.start_soon(self._keep, child, name=child.id)
        for child in children:
            child.changed.unpark_all()

    def _count_in_units(self) -> None:
        for child in self._working:
            for unit in child.units:
                unit.working.add(child)

    def end(self, unit: Unit[Child], *, drain_until: float) -> None:
        """Stop all of a service inside for good, in order; nothing of it has failed. Returns at once."""
        alive = [child for child in unit.members if not child.retired]
        for child in alive:
            child.retire()
            if child.accepts and child.life is not None:
                child.life.stop_accepting()
        if alive:
            self._nursery.start_soon(partial(self._stop_all, alive, drain_until=drain_until))

    def report(self, child: Child, state: State, reason: str = "") -> None:
        """Move a child between ready and degraded, or when it gets up; anything else is ignored as too late.

        What it says while it starts, and what ails it now instead of what did, is kept as its reason and no event.
        One that is to stop does not become degraded any more: whom it spoke to may stop before it, as it should.
        """
        if child.state is State.STARTING:
            child.degraded = reason if state is State.DEGRADED else None
            child.reason = child.degraded or ""
        elif state is State.DEGRADED and (child.retired or (child.life is not None and child.life.recalled)):
            return
        elif child.state in USABLE and child.state is not state:
            self._move(child, state, reason)
        elif child.state is state:
            child.reason = reason

    def closing(self, child: Child) -> None:
        """Note that a child has nothing in flight any more and closes, of its own accord or because it was asked to."""
        if child.state in ALIVE - {State.STOPPING}:
            self._move(child, State.STOPPING)

    # --- one child --------------------------------------------------------------------------------------------

    async def _keep(self, child: Child) -> None:
        child.task = trio.lowlevel.current_task()
        await trio.lowlevel.checkpoint()
        while await self._may_start(child):
            how, error = await self._live(child)
            await self._follow(child, how, error)
        if child.state not in FINAL:
            self._end(child)
        child.task = None
        self._ended(child)

    def _ended(self, child: Child) -> None:
        """Note that nothing more is to come of a child."""
        if child in self._working:
            self._working.remove(child)
            for unit in child.units:
                unit.working.discard(child)
                if not (unit.working or self._changing):
                    self.on_unit_finished(unit)
            if not (self._working or self._changing):
                self.on_finished()

    async def _may_start(self, child: Child) -> bool:
        """Wait until the child may start; False if it never will."""
        waits_for = obstacles(child)
        while child.state not in FINAL and not child.retired:
            failed = next((other for other in child.uses if other.state is State.FAILED and not other.escalates), None)
            if failed is not None:
                await self._fail(child, DependencyError(child.id, dependency=failed.id))
            elif child.held or next(waits_for, None) is not None:
                await child.changed.park()
            elif is_free_to_start(child):
                return True  # noqa: ASYNC910  it must still hold when the life begins
            else:  # what was up when it was looked at has gone down since
                waits_for = obstacles(child)
        return False  # noqa: ASYNC910  its keeper has waited

    async def _live(self, child: Child) -> tuple[Ending, BaseException | None]:
        """Live one life of the child, from constructor to close."""
        on_started, on_closing = partial(self._started, child), partial(self.closing, child)
        life = Life(child.start_timeout, child.stop_timeout, on_started, on_closing)
        child.life, child.degraded = life, None
        child.lives += 1
        self._move(child, State.STARTING)
        self._nursery.start_soon(self._watch, child, life)
        try:
            error = await self._run_body(child, life)
        finally:
            life.end()
            child.life = None
            child.value = None
            child.left_behind = False
            self._notify(child)
        child.ready_for = trio.current_time() - life.ready_at if life.is_ready else 0.0
        self.cut |= child.retired and life.is_open and (life.cut or life.whole.cancelled_caught)
        return ending(child, life, error), error

    async def _run_body(self, child: Child, life: Life) -> BaseException | None:
        """Live the life; return what the component raised. What is not its own, such as `Cancelled`, goes on."""
        try:
            with life.begin():
                await child.body(life)
        except BaseException as error:  # noqa: BLE001  the boundary of a component: `_follow` reports it
            own, others = parted(error)
            if others is None:
                return own  # noqa: ASYNC910  `_follow` must act before others run, and then waits
            self._report_error(child, own, final=True)
            raise others from None
        return None

    async def _watch(self, child: Child, life: Life) -> None:
        """See to it that a life moves on, from outside: it may heed none of its own scopes."""
        with life.start:
            await trio.sleep_forever()
        if child.life is life and not (life.is_ready or life.stopping):  # it was not ready in time
            self.closing(child)
        with life.patience:
            await trio.sleep_forever()
        if child.life is life:
            await self._leave_behind(child, life)

    def _started(self, child: Child, value: object) -> None:
        child.value = value
        if child.state is State.STARTING:  # else it became ready while it was being stopped
            self._move(child, State.READY)
            if child.degraded is not None:
                self._move(child, State.DEGRADED, child.degraded)

    async def _follow(self, child: Child, how: Ending, error: BaseException | None) -> None:
        """Do what the child's policy says about an ending.

        It is done before anybody else runs: nobody may see a child that is ready and has no life.
        """
        if child.state in FINAL:  # it was left behind, and has ended after all
            self._report_error(child, error, final=False)
            return  # noqa: ASYNC910  its life is over
        match follows := verdict(child.policy.policy, how):
            case Verdict.STOP:
                self._report_error(child, error, final=child.escalates or not child.is_given_up)
                self._end(child)
            case Verdict.FAIL:
                await self._fail(child, error or cause(child, how))
            case Verdict.RESUME:
                self._report_error(child, error, final=False, restart_in=0.0)
                self._move(child, State.BACKOFF)
            case Verdict.RESTART:
                await self._restart(child, error or cause(child, how))
            case _:
                assert_never(follows)
        await trio.lowlevel.checkpoint()

    async def _restart(self, child: Child, error: BaseException) -> None:
        """Wait out the backoff, with all that restart with the child stopped; or give it up."""
        history = child.history if child.group is None else child.group.history
        wait = history.next_wait(healthy_for=healthy_for(child))
        if wait is None:
            await self._give_up(child, worn_out(child, history.policy, error))
            return
        self._tell_failure(child, error, restart_in=wait)
        self._move(child, State.BACKOFF, reason=f"restart in {wait:.2f} s")
        others = affected(child)
        with holding(others):
            await self._stop_all(others, drain_until=-math.inf)
            await sleep_unless_retired(child, wait)

    async def _give_up(self, child: Child, error: BaseException) -> None:
        """Fail a child that has been restarted too often, and its group as a whole."""
        if (whole := restarted_whole(child, error, with_group=True)) is not None:
            await self._restart_whole(*whole, child, error)
            return
        if child.group is not None:
            child.group.failed = True
            for member in child.group.members:
                member.retire()
        await self._fail(child, error)

    async def _fail(self, child: Child, error: BaseException) -> None:
        """End a child for good: if it is essential, whoever is told stops the service; else its users end too."""
        with_group = child.group is not None and child.group.failed
        if (whole := restarted_whole(child, error, with_group=with_group)) is not None:
            await self._restart_whole(*whole, child, error)
            return
        lost = next((unit for unit in failing_with(child, with_group=with_group) if not unit.essential), None)
        if lost is not None:
            lost.failed = True
            for member in lost.members:
                member.retire()
        self._report_error(child, error, final=child.escalates)
        self._move(child, State.FAILED, reason=describe(error, child.mask))
        if child.escalates:
            self.on_failure(child)
        else:
            await self._stop_all(lost_with(child), drain_until=-math.inf)
        await trio.lowlevel.checkpoint()

    async def _restart_whole(self, unit: Unit[Child], wait: float, child: Child, error: BaseException) -> None:
        """Start all of a service inside again, in place of the failure for good of a child."""
        self._tell_failure(child, error, restart_in=wait)
        self._move(child, State.BACKOFF, reason=f"{unit.id} restarts in {wait:.2f} s")
        if unit.restarting:  # by another of its members, which holds this one
            await trio.lowlevel.checkpoint()
            return
        everyone = dict.fromkeys(other for member in unit.members for other in (member, *affected(member)))
        unit.restarting = True
        try:
            with holding(everyone):
                await self._stop_all([one for one in everyone if one is not child], drain_until=-math.inf)
                for member in unit.members:
                    member.forget_restarts()
                await sleep_unless_retired(child, wait)
        finally:
            unit.restarting = False

    def _end(self, child: Child) -> None:
        if child.is_given_up:
            whole = "its group" if child.group is not None and child.group.failed else "its service"
            self._move(child, State.FAILED, reason=f"a member of {whole} was restarted too often")
        else:
            self._move(child, State.STOPPED)

    # --- stopping ---------------------------------------------------------------------------------------------

    async def stop_users(self, child: Child) -> None:
        """Stop those that use a child which is about to close by itself; they start again when it is back.

        Cancellation: Is a checkpoint; it is bounded by the `stop_timeout`s of the users.
        """
        await trio.lowlevel.checkpoint()
        if child.state in USABLE:
            self._move(child, State.STOPPING)
        await self._stop_all(affected(child), drain_until=-math.inf)

    async def _stop_all(self, children: Collection[Child], *, drain_until: float) -> None:
        """Stop children, each after those of them that depend on it; none starts before all are down."""
        among = set(children)
        alive = [(child, child.life) for child in children if child.life is not None]
        for _, life in alive:
            life.recalled = True
        with holding(children):
            await trio.lowlevel.checkpoint()
            async with trio.open_nursery() as nursery:
                for child, _ in alive:
                    nursery.start_soon(self._stop, child, among, drain_until)

    async def _stop(self, child: Child, among: Collection[Child], drain_until: float) -> None:
        await trio.lowlevel.checkpoint()
        for follower in standing_on(child):
            while follower in among and not follower.is_down:
                await follower.changed.park()
        await self._withhold(child, drain_until)
        life = child.life
        if life is None:
            return
        drain_until = drain_until if child.accepts and not self._hastened else -math.inf
        if child.state in USABLE and drain_until > trio.current_time():
            self._move(child, State.DRAINING)
        elif child.state is not State.DRAINING:
            self.closing(child)
        life.request_stop(drain_until=drain_until)
        while child.life is life and not child.left_behind:
            await child.changed.park()

    async def _withhold(self, child: Child, drain_until: float) -> None:  # noqa: ASYNC910  suspends only to wait
        """Let a child finish the work that others have given it."""
        if child.withhold is None or child.life is None or self._hastened or drain_until <= trio.current_time():
            return  # noqa: ASYNC910  as above
        left = child.withhold(child.life.component)
        if left is not None:
            if child.state in USABLE:
                self._move(child, State.DRAINING)
            child.life.drain.deadline = min(child.life.drain.deadline, drain_until)
            with trio.move_on_at(drain_until):
                await left

    async def _leave_behind(self, child: Child, life: Life) -> None:
        """Wait no longer for a life that does not end; beside it there cannot be another one."""
        child.left_behind = True
        place = where(child.task) if child.task is not None else "unknown"
        self.hub.emit(StopTimedOut(component=child.id, where=place))
        self._notify(child)
        if child.is_given_up:
            self._end(child)
        elif not child.retired:
            await self._fail(child, left_behind(child, life, place))
        self._ended(child)
        await trio.lowlevel.checkpoint()

    # --- telling ----------------------------------------------------------------------------------------------

    def _move(self, child: Child, state: State, reason: str = "") -> None:
        old, child.state = child.state, moved(child.state, state)
        child.reason, child.moved_at = reason, trio.current_time()
        self.hub.emit(StateChanged(component=child.id, old=old, new=state, reason=reason))
        if child.essential:
            (self.missing.discard if serves(child) else self.missing.add)(child)
        for unit in child.units:
            unit.note(child, serves=serves(child))
        if not self.missing:
            self.on_ready()
        self._notify(child)

    def _report_error(
        self, child: Child, error: BaseException | None, *, final: bool, restart_in: float | None = None
    ) -> None:
        if error is not None:
            if final:
                self.errors.append(error)
            self._tell_failure(child, error, restart_in=restart_in)

    def _tell_failure(self, child: Child, error: BaseException, *, restart_in: float | None) -> None:
        child.error = error
        self.hub.emit(ComponentFailed(component=child.id, error=error, restart_in=restart_in))

    def _notify(self, child: Child) -> None:
        for one in (child, *standing_on(child)):
            one.changed.unpark_all()
