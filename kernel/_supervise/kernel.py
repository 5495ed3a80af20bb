"""What a program can ask of a running service, and how one ended. Long, since all of it stands in one place."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, final

import attrs
import trio

from .._core.changes import Changes
from .._core.events import (
    EventHub,
    KernelReady,
    KernelReloaded,
    StopRequested,
)
from .._core.lifecycle import FINAL, USABLE, State
from .._core.pulse import Pulse, current_pulse
from .._core.snapshot import Snapshot
from .._core.spec import DispatcherSpec, Plan
from .._core.stacks import where
from .._delivery.intake import Tap
from ..errors import StartupError, UnavailableError
from .child import Child, affected
from .look import look
from .reload import Again, Reloading, stops
from .stages import Stages
from .step import Steps
from .supervisor import Supervisor
from .tree import PAUSED, Tree

if TYPE_CHECKING:
    from .why import Cause, Deadline


class ExitStatus(enum.IntEnum):
    """How a service ended, as the exit status of its process."""

    STOPPED = 0
    FAILED = 1
    """An essential component failed, or something was raised while stopping."""
    INVALID = 2
    """The manifest or the command line is wrong; nothing was started."""
    CUT = 3
    """It stopped, but something had to be cancelled or left behind at a deadline."""


@final
@attrs.frozen
class Result:
    """How a service ended."""

    status: ExitStatus
    errors: tuple[BaseException, ...]
    """Why, if the status is `FAILED`."""
    returned: int = 0
    """The exit status that the worker with `main = true` returned: that of the process, if `status` is `STOPPED`."""
    ran_to_end: bool = False
    """Whether nothing told it to stop: the worker with `main = true` has returned, or nothing was left to run."""


@final
@attrs.define(eq=False, repr=False)
class Kernel:
    """A running service, as the program around it sees it."""

    plan: Plan
    hub: EventHub
    _tree: Tree
    _supervisor: Supervisor
    _began: float = attrs.field(factory=trio.current_time, init=False)
    _pulse: Pulse = attrs.field(factory=current_pulse, init=False)
    _clock: trio.abc.Clock = attrs.field(factory=trio.lowlevel.current_clock, init=False)
    on_left: Callable[[], object] = attrs.field(default=bool, init=False)
    """Called when all has stopped but what was left behind, which nobody in the event loop can end."""
    ran_to_end: bool = attrs.field(default=False, init=False)
    """Whether it stops, or has, because all is done that it is there for."""
    _announced: bool = attrs.field(default=False, init=False)
    _moved: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    """Where those wait who want to know whether it is ready."""
    _stop: trio.Event = attrs.field(factory=trio.Event, init=False)
    _stop_requested_at: float = attrs.field(default=math.inf, init=False)
    _stop_reason: str = attrs.field(default="", init=False)
    _reloading: Reloading = attrs.field(init=False)

    def __repr__(self) -> str:
        return f"<Kernel {self.plan.name}: {'ready' if self.is_ready else 'not ready'}>"

    @property
    def is_ready(self) -> bool:
        """Whether it may receive work: every essential component is ready, and nobody asked it to stop."""
        return not (self._stop.is_set() or self._supervisor.missing or self._tree.is_held)

    @property
    def states(self) -> Mapping[str, State]:
        """Component -> state; a worker with `instances` is listed as `worker/name[1]` and so on."""
        return {child.id: child.state for child in self._supervisor.children.values()}

    def snapshot(self) -> Snapshot:
        """Return what the service looks like now. May be called from any thread, also while the event loop is blocked."""
        return look(
            self._tree,
            self._pulse,
            now=self._clock.current_time(),
            began=self._began,
            stop_requested_at=self._stop_requested_at,
            stop_reason=self._stop_reason,
        )

    def resource(self, component: str) -> object:
        """Return what a component that is ready offers: a driver's resource, a worker's object.

        Raises:
            UnavailableError: if it is not ready.
        """
        child = self._supervisor.children.get(component)
        if child is None or child.state not in USABLE:
            raise UnavailableError(f"{component} is {child.state.value if child else 'not in the manifest'}")
        return child.value

    def now(self) -> float:
        """Return the time by the clock of its event loop. May be called from any thread."""
        return self._clock.current_time()

    def why(self) -> list[Cause]:
        """Return what it waits for: to be ready, to go on, or to have stopped. May be called from any thread.

        In the event loop, `Cause.located` adds to each the line of code.
        """
        from .why import causes  # noqa: PLC0415  a service that nobody asks would pay for it at its start

        return list(causes(self._tree, self.snapshot(), self.now()))

    def deadlines(self) -> dict[str, Deadline]:
        """Return for each component that is on its way somewhere how long that may take. From any thread."""
        from .why import deadlines  # noqa: PLC0415  as above

        return deadlines(self._tree, self.now())

    def taken(self) -> dict[str, int]:
        """Return how many deliveries and requests each dispatcher has taken in this life. From any thread."""
        return {id_: intake.taken for id_, intake in list(self._tree.intakes.items())}

    @property
    def paused(self) -> frozenset[str]:
        """The dispatchers that begin nothing new."""
        return frozenset(self._tree.paused)

    def pause(self, dispatcher: str) -> None:
        """Have a dispatcher begin nothing new until `resume`, also when it restarts. What it has begun is finished.

        It is degraded meanwhile. Its source goes on to be connected, and may hold as much as it sends ahead.

        Raises:
            ValueError: if there is no such dispatcher, or it surrounds the service: it takes no work, goes on answering,
                and would only tell of itself that it is degraded.
        """
        child = self._dispatcher(dispatcher)
        spec = self.plan.components[child.id]
        if isinstance(spec, DispatcherSpec) and spec.cls.surrounds:
            raise ValueError(f"{child.id} takes no work that could be paused: it tells how the service is")
        if child.id in self._tree.paused:
            return
        self._tree.paused.add(child.id)
        if (intake := self._tree.intakes.get(child.id)) is not None:
            intake.pause()
        self._supervisor.report(child, State.DEGRADED, PAUSED)

    def resume(self, dispatcher: str) -> None:
        """Have a dispatcher that is paused go on.

        Raises:
            ValueError: if there is no such dispatcher.
        """
        child = self._dispatcher(dispatcher)
        if child.id in self._tree.paused:
            self._tree.paused.discard(child.id)
            if (intake := self._tree.intakes.get(child.id)) is not None:
                intake.resume()
            self._supervisor.report(child, State.READY, "resumed")

    def tap(self, dispatcher: str, tap: Tap | None) -> None:
        """Have a function called with each delivery that a dispatcher has settled; None ends it.

        Args:
            dispatcher: Its id.
            tap: Gets the worker, the delivery, the outcome and the seconds from its begin; it must return at once, and
                must not raise.

        Raises:
            ValueError: if there is no such dispatcher, or it delivers no messages.
        """
        child = self._dispatcher(dispatcher)
        spec = self.plan.components[child.id]
        if tap is not None and isinstance(spec, DispatcherSpec) and not spec.cls.delivers:
            raise ValueError(
                f"{child.id} delivers no messages, and a tap shows nothing else: requests stand in the access log of web"
            )
        if tap is None:
            self._tree.taps.pop(child.id, None)
        else:
            self._tree.taps[child.id] = tap
        if (intake := self._tree.intakes.get(child.id)) is not None:
            intake.tap = tap

    def restart(self, component: str) -> list[str]:
        """Stop a component in order, with those that restart with it, and start them again. Returns at once.

        A dispatcher may finish what it has begun, within `drain_timeout`. What waits to be started again is started
        now.

        Returns:
            The ids of all that restart.

        Raises:
            ValueError: if there is no such component, it will not start again, or the service stops.
        """
        children = self._children(component)
        if component in map("service/{}".format, self.plan.services):  # in which some may be done
            children = [child for child in children if child.state not in FINAL] or children
        if self._stop.is_set():
            raise ValueError("the service stops")
        if ended := [child for child in children if child.state in FINAL]:
            raise ValueError(f"{ended[0].id} has {ended[0].state.value}, and does not start again")
        self._supervisor.restart(children, drain_until=trio.current_time() + self.plan.drain_timeout)
        return list(dict.fromkeys(one.id for child in children for one in (child, *affected(child))))

    async def reload(self, plan: Plan | None = None) -> KernelReloaded:
        """Become what a plan says: what has changed is stopped and started, with those that restart with it.

        Everything else goes on, and notices nothing. Several that are asked for while one is under way are one more.
        If something essential cannot start for good, all of it is taken back.

        Args:
            plan: Of the same service; if None, the manifest is read again, as it was for the start.

        Returns:
            What was done, once all is up, or is known not to be.

        Raises:
            InvalidError: if the manifest is wrong, or changes what a running service cannot; nothing is changed then.
            StartupError: if a protocol cannot be built; as above.
            UnavailableError: if the service stops, or is told to meanwhile.
            ValueError: if there is no plan, and nobody has said where the manifest is.

        Cancellation: Is a checkpoint. If cancelled, the reload goes on.
        """
        self._check_goes_on()
        return await self._reloading.reload(plan)

    async def preview(self) -> tuple[Plan, Changes]:
        """Return the plan that a reload would read now, and what it would do. Nothing is done.

        Raises:
            InvalidError: if the manifest is wrong, or a running service cannot take it over.
            ValueError: if nobody has said where it is.

        Cancellation: Is a checkpoint.
        """
        return await self._reloading.preview()

    def request_reload(self) -> None:
        """Have the manifest read again soon; the event `KernelReloaded` or `ReloadFailed` says what came of it.

        Raises:
            UnavailableError: if the service stops.
            ValueError: if nobody has said where the manifest is.
        """
        self._check_goes_on()
        self._reloading.ask(None)

    def _check_goes_on(self) -> None:
        if self._stop.is_set():
            raise UnavailableError(stops(self._stop_reason))

    def _dispatcher(self, id_: str) -> Child:
        if not isinstance(self.plan.components.get(id_), DispatcherSpec):
            raise ValueError(f"{id_} is no dispatcher of the manifest")  # noqa: TRY004  a name means another one
        return self._supervisor.children[id_]

    def _children(self, component: str) -> list[Child]:
        children = self._tree.children(component)
        if not children:
            raise ValueError(f"{component} is not in the manifest")
        return children

    def request_stop(self, reason: str = "requested") -> None:
        """Ask the service to stop in order; further calls change nothing. May be called from any of its tasks."""
        if not self._stop.is_set():
            self.foresee_stop(reason)
            self._stop.set()
            self._moved.unpark_all()
            self.hub.emit(StopRequested(component="kernel", reason=self._stop_reason))

    def foresee_stop(self, reason: str) -> None:
        """Have snapshots say that it is to stop, before the event loop comes to it. Safe in a signal handler."""
        if self._stop_requested_at == math.inf:
            self._stop_requested_at, self._stop_reason = self._clock.current_time(), reason

    def finish(self, reason: str) -> None:
        """Ask the service to stop because all is done that it is there for, if nothing has asked before."""
        self.ran_to_end |= not self._stop.is_set()
        self.request_stop(reason)

    def note_ready(self) -> None:
        """Tell those who wait for it that it may be ready; the first time that it is, tell everybody."""
        self._moved.unpark_all()
        if self.is_ready and not self._announced:
            self._announced = True
            self.hub.emit(KernelReady(component="kernel", seconds=trio.current_time() - self._began))

    def failed(self, child: Child) -> None:
        """Ask for the stop because an essential component has failed, unless a reload is taken back for it."""
        if not self._reloading.steps.takes(child):
            self.request_stop(f"{child.id} failed")

    # --- the way of a service, for `serve` ------------------------------------------------------------------------

    is_risen: bool = attrs.field(default=False, init=False)
    """Whether the stages on the way up are over."""

    def reloads_by(self, stages: Stages, again: Again | None, adopt: Callable[[Plan], object]) -> None:
        """Say what reloads work with."""

        def taken(plan: Plan) -> None:
            self.plan = plan
            adopt(plan)
            if again is not None:
                again.taken(plan)

        steps = Steps(self._tree, stages, lambda: self.is_risen, taken, self.note_ready, self.request_stop)
        self._reloading = Reloading(steps, again, lambda: self._stop_reason)

    def start(self, nursery: trio.Nursery, *, is_risen: bool = True) -> None:
        """Start the components, from when on they can be reloaded."""
        self._supervisor.start(nursery)
        self.is_risen = is_risen
        self._reloading.begin(nursery)

    async def end_reloads(self) -> None:
        """End the reload that is under way, and refuse others. Is a checkpoint."""
        await self._reloading.end()

    @property
    def changing(self) -> trio.Lock:
        """Held while components are stopped or started by plan, and while they do something at a stage."""
        return self._reloading.steps.lock

    def hasten(self) -> None:
        """Skip what is left of the drain: cancel what is in flight now."""
        self._supervisor.hasten()

    def hanging(self) -> list[str]:
        """Return each component that has not stopped, with the line of user code that it is at."""
        alive = [child for child in self._supervisor.children.values() if child.life is not None]
        return [f"{child.id} at {where(child.task)}" for child in alive if child.task is not None]

    @property
    def stop_reason(self) -> str:
        """Why it was asked to stop; empty if it was not."""
        return self._stop_reason

    async def wait_ready(self) -> None:  # noqa: ASYNC910  it waits for three turns at least
        """Wait until it is ready; see `is_ready`.

        Raises:
            StartupError: if the service is asked to stop before.

        Cancellation: Is a checkpoint.
        """
        turns = 0
        while turns < 3:  # a worker is ready when its `run` begins, which may fail at once
            if self._stop.is_set():
                failure = next(iter(self._supervisor.errors), None)
                why = f": {self._stop_reason}" if failure is None and self._stop_reason else ""
                raise StartupError(f"{self.plan.name} stopped before it was ready{why}") from failure
            turns = turns + 1 if self.is_ready else 0
            await (trio.lowlevel.checkpoint if turns else self._moved.park)()

    async def wait_up(self) -> None:  # noqa: ASYNC910  suspends only to wait
        """Wait until every essential component is ready, whether the service is or not."""
        while self._supervisor.missing:
            await self._moved.park()

    async def wait_stop_requested(self) -> float:
        """Wait until somebody asks for the stop; return when that was.

        Cancellation: Is a checkpoint.
        """
        await self._stop.wait()
        return self._stop_requested_at
