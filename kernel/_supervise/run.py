"""Plan -> running service: start, wait for a reason to stop, stop in order, say how it went.

Works inside any trio program (tests run it in virtual time); signals and the process are `process`'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, final

import attrs
import trio

from .._core.crew import ALONE, STATE, Crew
from .._core.events import (
    ComponentFailed,
    EventHub,
    GracePeriodOver,
    KernelStopped,
)
from .._core.snapshot import Snapshot
from .._core.spec import Plan, StageHook, Zone
from ..errors import StartupError
from .kernel import ExitStatus, Kernel, Result
from .lives import BODIES
from .reload import Again
from .stages import FAILED, Stages
from .supervisor import Supervisor
from .tree import Tree

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


@final
@attrs.frozen(eq=False, repr=False)
class _Hooks:
    """The functions that the manifest has events passed to."""

    hub: EventHub
    _ends: list[Callable[[], None]] = attrs.field(factory=list[Callable[[], None]], init=False)

    def become(self, plan: Plan) -> None:
        """Pass events to those of a plan from now on, and to no others."""
        for end in self._ends:
            end()
        self._ends[:] = [self.hub.subscribe(hook.call, *hook.types) for hook in plan.hooks]


async def serve(
    plan: Plan,
    *,
    log: FilteringBoundLogger,
    hub: EventHub | None = None,
    again: Again | None = None,
    crew: Crew = ALONE,
    task_status: trio.TaskStatus[Kernel] = trio.TASK_STATUS_IGNORED,
) -> Result:
    """Run a service until it is asked to stop, fails, or has nothing left to do.

    A stop takes no longer than `plan.budget`, unless a component heeds neither its deadlines nor cancellation: a task
    cannot be ended from outside, so that this waits for such a one without a bound. `StopTimedOut` names it when it is
    left behind, and `GracePeriodOver` all that still run at the end of the grace period. As a process of its own, a
    service is ended by a watchdog then, or within the last wait of its budget where all else has stopped; a program that
    embeds one has to decide for itself.

    Args:
        plan: What to run.
        log: What components' own logs are bound to.
        hub: Where events go; a new one if None.
        again: Where `Kernel.reload` has the plan from; None if it has to be given one.
        crew: The processes of the service, of which this is one.
        task_status: Is given the `Kernel` as soon as the first component may start.

    Returns:
        How it ended; failures are in it, and not raised.

    Cancellation: Is a checkpoint. If cancelled, everything is cancelled without a drain: prefer
        `Kernel.request_stop`.
    """
    hub = EventHub() if hub is None else hub
    hooks = _Hooks(hub)
    hooks.become(plan)
    supervisor = Supervisor(
        hub,
        on_failure=lambda child: kernel.failed(child),  # noqa: PLW0108  the kernel comes after it
        on_finished=lambda: kernel.finish("nothing is left to run"),
        on_ready=lambda: kernel.note_ready(),  # noqa: PLW0108  the kernel comes after it
    )
    tree = Tree(plan, hub, log, supervisor, BODIES, crew)
    kernel = Kernel(plan, hub, tree, supervisor)
    tree.snapshot, tree.end = kernel.snapshot, kernel.finish
    withdraw = crew.offer(STATE, lambda: _state(kernel.snapshot()))
    stages = _stages(plan, tree)
    kernel.reloads_by(stages, again, hooks.become)
    async with trio.open_nursery() as around:
        around.start_soon(_tell_when_overdue, kernel)
        async with trio.open_nursery() as nursery:
            _build(tree, kernel, supervisor)
            task_status.started(kernel)
            requested = await _rise(kernel, tree, stages, nursery)
            with trio.CancelScope(deadline=requested + kernel.plan.grace_period) as patience:
                await _fall(kernel, tree, stages, requested)
            supervisor.cut |= patience.cancelled_caught
            if any(child.left_behind for child in supervisor.children.values()):
                kernel.on_left()
            nursery.cancel_scope.cancel()
        around.cancel_scope.cancel()
    result = attrs.evolve(_result(supervisor), returned=tree.returned, ran_to_end=kernel.ran_to_end)
    withdraw()
    seconds = trio.current_time() - requested
    hub.emit(KernelStopped(component="kernel", status=result.status, seconds=seconds))
    return result


def _state(seen: Snapshot) -> str:
    restarts = sum(one.restarts for one in seen.components if one.essential)
    return json.dumps({"busy": seen.busy, "ready": seen.is_ready, "restarts": restarts})


def _stages(plan: Plan, tree: Tree) -> Stages:
    supervisor = tree.supervisor

    def failed(hook: StageHook, error: BaseException) -> None:
        supervisor.errors.append(error)
        tree.hub.emit(ComponentFailed(component=hook.component, error=error, restart_in=None))

    def objects(zone: Zone, hook: StageHook) -> list[object]:
        return tree.alive(hook.component) if zone is Zone.ALIVE else [hook.owner]

    return Stages(plan.stages, objects, failed)


async def _rise(kernel: Kernel, tree: Tree, stages: Stages, nursery: trio.Nursery) -> float:
    """Start everything, with the stages on the way up, until somebody asks for the stop; return when that was."""
    tree.is_held = stages.has(Zone.ALIVE, rising=True) or stages.has(Zone.LOOP, rising=True)
    if not tree.is_held:
        kernel.start(nursery)
        return await kernel.wait_stop_requested()
    async with trio.open_nursery() as rising:
        rising.start_soon(_rise_by_stages, kernel, tree, stages, nursery)
        requested = await kernel.wait_stop_requested()
        rising.cancel_scope.cancel()
    return requested


async def _rise_by_stages(kernel: Kernel, tree: Tree, stages: Stages, nursery: trio.Nursery) -> None:
    if not await stages.rise(Zone.LOOP):
        kernel.request_stop(FAILED)
        return
    kernel.start(nursery, is_risen=False)
    while tree.is_held:
        await kernel.wait_up()
        async with kernel.changing:
            if tree.supervisor.missing:  # a reload has come before it
                continue
            if not await stages.rise(Zone.ALIVE):
                kernel.request_stop(FAILED)
                return
            tree.is_held = False
    kernel.is_risen = True
    kernel.note_ready()


async def _fall(kernel: Kernel, tree: Tree, stages: Stages, requested: float) -> None:
    """Stop everything, with the stages on the way down."""
    began = trio.current_time()
    await kernel.end_reloads()
    await stages.fall(Zone.ALIVE, kernel.stop_reason)
    spent = trio.current_time() - began
    if tree.supervisor.is_started:
        await tree.supervisor.stop(drain_until=requested + spent + kernel.plan.drain_timeout)
    await stages.fall(Zone.LOOP, kernel.stop_reason)


def _build(tree: Tree, kernel: Kernel, supervisor: Supervisor) -> None:
    """Make the children; if that fails, there are none, and the service is over."""
    try:
        tree.build()
    except StartupError as error:
        supervisor.errors.append(error)
        kernel.hub.emit(ComponentFailed(component="kernel", error=error, restart_in=None))
        kernel.request_stop("a protocol cannot be built")


def _result(supervisor: Supervisor) -> Result:
    if supervisor.errors:
        return Result(ExitStatus.FAILED, tuple(supervisor.errors))
    return Result(ExitStatus.CUT if supervisor.cut else ExitStatus.STOPPED, ())


async def _tell_when_overdue(kernel: Kernel) -> None:
    requested = await kernel.wait_stop_requested()
    await trio.sleep_until(requested + kernel.plan.grace_period)
    kernel.hub.emit(GracePeriodOver(component="kernel", culprits=tuple(kernel.hanging())))
