"""Starts children in the order of their dependencies, watches them, and applies restart policies.

Every child has a keeper task. A keeper waits until what its child depends on is up, lives one life of the child, and
asks `policies` what follows. Order needs no other bookkeeping: a child starts when what it `uses` and comes `after`
is up, and stops when those that use it or come after it are down. The supervisor knows no kind of component.

Source: OTP supervisor(3) for policies, intensity and strategies; here the rest in `rest_for_one` is by default what
really depends on the failed child.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager, nullcontext
from typing import assert_never, final

import attrs
import trio

from .._core.events import ComponentFailed, EventHub, StateChanged, StopTimedOut
from .._core.lifecycle import ALIVE, FINAL, USABLE, State, moved
from .._core.policies import Ending, RestartPolicy, Verdict, verdict
from .._core.stacks import where
from .._delivery.failure import describe
from ..errors import DependencyError, RestartLimitError
from .child import Child as Child
from .child import Group as Group
from .child import affected, cause, ending, is_free_to_start, lost_with, obstacles, standing_on
from .life import Life


@final
@attrs.define(eq=False, repr=False)
class Supervisor:
    """Keeps the children of one service."""

    hub: EventHub
    on_failure: Callable[[Child], None]
    """Called when an essential child has failed for good."""
    on_finished: Callable[[], None]
    """Called when no child is left that works by itself."""
    chance: Callable[[], float] = random.random
    children: dict[str, Child] = attrs.field(factory=dict[str, Child], init=False)
    errors: list[BaseException] = attrs.field(factory=list[BaseException], init=False)
    """Why essential children failed, and what was raised while stopping."""
    cut: bool = attrs.field(default=False, init=False)
    """Whether a stop had to cancel or leave behind something."""
    up: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when each child has been ready once, or has ended."""
    _hastened: bool = attrs.field(default=False, init=False)
    _coming: set[Child] = attrs.field(factory=set[Child], init=False)
    _working: int = attrs.field(default=0, init=False)

    def add(self, child: Child) -> Child:
        """Take a child, which depends only on children that were added before."""
        self.children[child.id] = child
        if child.group is not None:
            child.group.members.append(child)
        return child

    def start(self, nursery: trio.Nursery) -> None:
        """Start every keeper in the nursery; they end when their children have ended for good."""
        self._coming = set(self.children.values())
        self._working = sum(not child.resident for child in self._coming)
        if not self._coming:
            self.up.set()
        for child in self.children.values():
            nursery.start_soon(self._keep, child, name=child.id)

    async def stop(self, *, drain_until: float) -> None:
        """Stop all children in reverse order of their start, at the same time where nothing forbids it.

        Returns when each has ended for good or was left behind.

        Cancellation: Is a checkpoint. If cancelled, children have been asked to stop only in part.
        """
        await trio.lowlevel.checkpoint()
        everyone = list(self.children.values())
        for child in everyone:
            self._retire(child)
        for child in everyone:
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
                child.life.drain.deadline = -math.inf

    def report(self, child: Child, state: State, reason: str = "") -> None:
        """Move a child that is up between ready and degraded; anything else is ignored as too late."""
        if child.state in USABLE and child.state is not state:
            self._move(child, state, reason)

    def closing(self, child: Child) -> None:
        """Note that a child which was draining has nothing in flight any more."""
        if child.state is State.DRAINING:
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
        self._working -= not child.resident
        if not child.resident and self._working == 0:
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
        life = Life(child.start_timeout, child.stop_timeout, lambda value: self._started(child, value))
        child.life = life
        self._move(child, State.STARTING)
        try:
            error = await self._run_body(child, life)
        finally:
            child.life = None
            child.value = None
            child.left_behind = False
            self._notify(child)
        child.healthy_for = trio.current_time() - life.ready_at if life.is_ready else 0.0
        self.cut |= child.retired and life.is_ready and (life.cut or life.whole.cancelled_caught)
        return ending(child, life, error), error

    async def _run_body(self, child: Child, life: Life) -> BaseException | None:
        """Live the life; return what the component raised. What is not its own, such as `Cancelled`, goes on."""
        try:
            with life.begin():
                await child.body(life)
        except (Exception, SystemExit) as error:  # noqa: BLE001  the boundary of a component: `_follow` reports it
            return error  # noqa: ASYNC910  `_follow` must act before others run, and then waits
        except BaseExceptionGroup as group:
            own, others = group.split((Exception, SystemExit))
            if others is None:
                return own  # noqa: ASYNC910  as above
            self._report_error(child, own, final=True)
            raise others from None
        return None

    def _started(self, child: Child, value: object) -> None:
        child.value = value
        if child.state is State.STARTING:  # else it became ready while it was being stopped
            self._move(child, State.READY)

    async def _follow(self, child: Child, how: Ending, error: BaseException | None) -> None:
        """Do what the child's policy says about an ending.

        It is done before anybody else runs: nobody may see a child that is ready and has no life.
        """
        match follows := verdict(child.policy.policy, how):
            case Verdict.STOP:
                self._report_error(child, error, final=child.escalates or not child.is_given_up)
                self._end(child)
            case Verdict.FAIL:
                await self._fail(child, error or cause(child, how))
            case Verdict.RESUME:
                self._report_error(child, error, final=False)
                self._move(child, State.BACKOFF)
            case Verdict.RESTART:
                await self._restart(child, error or cause(child, how))
            case _:
                assert_never(follows)
        await trio.lowlevel.checkpoint()

    async def _restart(self, child: Child, error: BaseException) -> None:
        """Wait out the backoff, with all that restart with the child stopped; or give it up."""
        history = child.history if child.group is None else child.group.history
        wait = history.next_wait(trio.current_time(), healthy_for=child.healthy_for)
        if wait is None:
            await self._give_up(child, error, history.policy)
            return
        self.hub.emit(ComponentFailed(component=child.id, error=error, restart_in=wait))
        self._move(child, State.BACKOFF, reason=f"restart in {wait:.2f} s")
        others = affected(child)
        with _holding(others):
            await self._stop_all(others, drain_until=-math.inf)
            await _sleep_unless_retired(child, wait)

    async def _give_up(self, child: Child, error: BaseException, limit: RestartPolicy) -> None:
        """Fail a child that has been restarted too often, and its group as a whole."""
        tired = RestartLimitError(child.id, max_restarts=limit.max_restarts, window=limit.window, last=describe(error))
        tired.__cause__ = error
        if child.group is not None:
            child.group.failed = True
            for member in child.group.members:
                self._retire(member)
        await self._fail(child, tired)

    async def _fail(self, child: Child, error: BaseException) -> None:
        """End a child for good: if it is essential, whoever is told stops the service; else its users end too."""
        self._report_error(child, error, final=child.escalates)
        self._move(child, State.FAILED, reason=describe(error))
        if child.escalates:
            self.on_failure(child)
        else:
            await self._stop_all(lost_with(child), drain_until=-math.inf)
        await trio.lowlevel.checkpoint()

    def _end(self, child: Child) -> None:
        if child.is_given_up:
            self._move(child, State.FAILED, reason="a member of its group was restarted too often")
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
        with _holding(children):
            await trio.lowlevel.checkpoint()
            async with trio.open_nursery() as nursery:
                for child, _ in alive:
                    nursery.start_soon(self._stop, child, among, drain_until)

    async def _stop(self, child: Child, among: Collection[Child], drain_until: float) -> None:
        await trio.lowlevel.checkpoint()
        for follower in standing_on(child):
            while follower in among and not follower.is_down:
                await follower.changed.park()
        life = child.life
        if life is None:
            return
        is_first = not life.stopping
        drain_until = drain_until if child.accepts and not self._hastened else -math.inf
        self._move_to_stopping(child, drains=drain_until > trio.current_time())
        life.request_stop(drain_until=drain_until)
        with life.patience if is_first else nullcontext():
            while child.life is life and not child.left_behind:
                await child.changed.park()
        if is_first and child.life is life:
            self._leave_behind(child)

    def _move_to_stopping(self, child: Child, *, drains: bool) -> None:
        if drains and child.state in USABLE:
            self._move(child, State.DRAINING)
        elif child.state in ALIVE - {State.STOPPING, State.DRAINING}:
            self._move(child, State.STOPPING)

    def _leave_behind(self, child: Child) -> None:
        child.left_behind = True
        place = where(child.task) if child.task is not None else "unknown"
        self.hub.emit(StopTimedOut(component=child.id, where=place))
        self._notify(child)

    def _retire(self, child: Child) -> None:
        child.retired = True
        child.changed.unpark_all()

    # --- telling ----------------------------------------------------------------------------------------------

    def _move(self, child: Child, state: State, reason: str = "") -> None:
        old, child.state = child.state, moved(child.state, state)
        self.hub.emit(StateChanged(component=child.id, old=old, new=state, reason=reason))
        if state in USABLE or state in FINAL:
            self._coming.discard(child)
            if not self._coming:
                self.up.set()
        self._notify(child)

    def _report_error(self, child: Child, error: BaseException | None, *, final: bool) -> None:
        if error is not None:
            if final:
                self.errors.append(error)
            self.hub.emit(ComponentFailed(component=child.id, error=error, restart_in=None))

    def _notify(self, child: Child) -> None:
        for one in (child, *standing_on(child)):
            one.changed.unpark_all()


@contextmanager
def _holding(children: Collection[Child]) -> Generator[None]:
    """Keep children that are down from starting."""
    for child in children:
        child.held += 1
    try:
        yield
    finally:
        for child in children:
            child.held -= 1
            child.changed.unpark_all()


async def _sleep_unless_retired(child: Child, seconds: float) -> None:
    await trio.lowlevel.checkpoint()
    with trio.move_on_after(seconds):
        while not child.retired:
            await child.changed.park()
