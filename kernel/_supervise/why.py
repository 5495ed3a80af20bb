"""What a service waits for: why it is not ready, does not go on, or has not stopped, and until when.

Reads only what any thread may read at any time, as `look` does; but for the lines of code, which `Cause.located` adds
in the event loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, final

import attrs
import trio

from .._core.broker import Delivery
from .._core.lifecycle import State, SwitchState
from .._core.snapshot import Snapshot
from .._core.spec import DispatcherSpec
from .._core.stacks import where
from .._core.words import listed
from .._delivery.failure import describe
from .._delivery.kill_switch import KillSwitch
from .child import Child, obstacles_of
from .tree import Tree

LONG: Final = 5.0
"""Seconds after which a handler is told of while nothing else is wrong."""
_IN_A_ROW: Final = 3
"""Deliveries that have to fail, and none between be handled, before that is told of."""
_SHOWN: Final = 10
"""Deliveries of a dispatcher that are told one by one: the oldest."""
_TASKS: Final = 20
"""Tasks below one that are looked at for its line of code."""


@final
@attrs.frozen(kw_only=True)
class Deadline:
    """When something ends that a component is in."""

    what: str
    """The word of the manifest for it, such as `start_timeout`."""
    seconds: float
    """From now."""


@final
@attrs.frozen(kw_only=True)
class Cause:
    """One thing that keeps a service from being ready, from going on, or from having stopped."""

    component: str
    """`kind/name`, or `kernel`."""
    what: str
    """What it does, or waits for."""
    seconds: float = 0.0
    """For how long it has."""
    until: float = math.inf
    """By the clock of the event loop; infinite if nothing bounds it."""
    then: str = ""
    """What follows then."""
    where: str = ""
    """`file:line`, innermost frame of the user's code; empty if it is not known."""
    task: trio.lowlevel.Task | None = attrs.field(default=None, repr=False, eq=False)
    """What is where."""

    def located(self) -> Cause:
        """Return it with its line of code. Call it in the event loop."""
        return self if self.task is None else attrs.evolve(self, where=where(self.task, limit=_TASKS), task=None)


def deadlines(tree: Tree, now: float) -> dict[str, Deadline]:
    """Return for each component that is on its way somewhere how long that may take."""
    found = {child.id: _deadline(tree, child) for child in tree.supervisor.children.values()}
    return {
        id_: Deadline(what=what, seconds=max(0.0, at - now)) for id_, (what, at, _) in found.items() if at < math.inf
    }


def causes(tree: Tree, snapshot: Snapshot, now: float) -> Iterator[Cause]:
    """Yield what the service waits for: the event loop first, then components in start order, then handlers."""
    if snapshot.blocked_at:
        yield Cause(
            component="kernel",
            what="the event loop is blocked, so nothing else goes on",
            seconds=snapshot.busy,
            where=snapshot.blocked_at,
        )
    if snapshot.is_stopping:
        left = snapshot.grace_period - snapshot.stopping_for
        yield Cause(
            component="kernel",
            what=f"stops: {snapshot.reason}",
            seconds=snapshot.stopping_for,
            until=now + left,
            then="the process is ended",
        )
    for child in list(tree.supervisor.children.values()):
        if (what := _what(tree, child)) is not None:
            _, until, then = _deadline(tree, child)
            if child.state is State.STOPPING and until <= now:
                what, until, then = "hangs: it was left behind when its stop_timeout was over", math.inf, ""
            is_on_its_way = child.state in {State.STARTING, State.STOPPING} and child.id not in tree.gate.waiting
            task = child.task if is_on_its_way else None
            seconds = max(0.0, now - child.moved_at)
            yield Cause(component=child.id, what=what, seconds=seconds, until=until, then=then, task=task)
    for spec in tree.plan.components.values():
        if isinstance(spec, DispatcherSpec):
            yield from _failing(tree, spec, now)
            yield from _handlers(tree, spec, now)
            yield from _requests(tree, spec)


def _what(tree: Tree, child: Child) -> str | None:
    """Return what a component waits for; None if for nothing."""
    obstacles = listed(dict.fromkeys(one.id for one in obstacles_of(child)))
    reason = f": {tree.masks.applied(child.reason)}" if child.reason else ""
    what: str | None = None
    match child.state:
        case State.CREATED | State.BACKOFF:
            what = f"waits for {obstacles}" if obstacles != "nothing" else _before_its_start(tree, child)
        case State.STARTING:
            awaited = tree.gate.missing if child.id in tree.gate.waiting else ()
            what = f"has opened, and waits for {listed(sorted(awaited))}" if awaited else f"starts{reason}"
        case State.STOPPING:
            what = f"closes, after {obstacles}" if obstacles != "nothing" else "closes"
        case State.DRAINING:
            intake = tree.intakes.get(child.id)
            what = f"drains, after {obstacles}" if intake is None else f"drains: {intake.in_flight} in flight"
        case State.DEGRADED:
            what = f"is degraded{reason}"
        case State.FAILED:
            what = f"has failed for good{reason}"
        case State.READY | State.STOPPED:
            pass
    return what


def _before_its_start(tree: Tree, child: Child) -> str:
    if child.held and child.starts_at == -math.inf:
        return "waits for others that stop or restart"
    if child.state is State.CREATED:
        return "has not begun"
    return f"waits to start again{'' if child.error is None else f' after {describe(child.error, tree.masks.applied)}'}"


def _deadline(tree: Tree, child: Child) -> tuple[str, float, str]:
    """Return which bound holds of a component, when it is over, and what follows then."""
    life, nothing = child.life, ("", math.inf, "")
    match child.state:
        case State.BACKOFF:
            return ("restart", child.starts_at, "it starts") if child.starts_at > -math.inf else nothing
        case State.STARTING if life is not None:
            return "start_timeout", life.start.deadline, "it is cancelled"
        case State.DRAINING if life is not None:
            return "drain_timeout", life.drain.deadline, "what is in flight is cancelled and goes back"
        case State.STOPPING if life is not None:
            return "stop_timeout", life.patience.deadline, "it is left behind"
        case State.DEGRADED if (switch := _switch(tree, child)) is not None:
            return "pause", switch.until, "one call tries whether it works again"
        case _:
            return nothing


def _switch(tree: Tree, child: Child) -> KillSwitch | None:
    """Return the kill switch that pauses a worker."""
    pool = tree.pools.get(child.id.removeprefix("worker/").partition("[")[0])
    return pool.switch if pool is not None and pool.switch and pool.switch.state is SwitchState.OPEN else None


def _failing(tree: Tree, spec: DispatcherSpec, now: float) -> Iterator[Cause]:
    """Yield the workers of a dispatcher that fail at all that it brings; the dispatcher, if it is for none of them."""
    intake = tree.intakes.get(spec.id)
    for worker, row in [] if intake is None else intake.failures.longer_than(_IN_A_ROW):
        what = f"failed at the last {row.count} deliveries" + (f" of {spec.id}" if worker else " that it brought")
        yield Cause(
            component=worker or spec.id,
            what=f"{what}, at the last with {tree.masks.applied(row.error)}",
            seconds=max(0.0, now - row.since),
        )


def _handlers(tree: Tree, spec: DispatcherSpec, now: float) -> Iterator[Cause]:
    """Yield the deliveries that a dispatcher drains, or that take long, the oldest first."""
    intake = tree.intakes.get(spec.id)
    if intake is None:
        return
    least = 0.0 if _is_ending(tree, spec) else LONG
    under_way = sorted(intake.under_way(), key=lambda one: one[1])
    under_way = [one for one in under_way if max(0.0, now - one[1]) >= least]
    calls = _calls(tree, spec) if under_way else {}
    for delivery, began, task in under_way[:_SHOWN]:
        worker, until = calls.get(id(delivery), ("", math.inf))
        envelope = delivery.envelope
        yield Cause(
            component=worker or spec.id,
            what=f"{'handles' if worker else 'keeps'} delivery {envelope.id} ({envelope.subject[:100]!r}) of {spec.id}",
            seconds=max(0.0, now - began),
            until=until,
            then="its handler is cancelled, and has failed" if worker else "",
            task=task,
        )
    if len(under_way) > _SHOWN:
        yield Cause(component=spec.id, what=f"has {len(under_way) - _SHOWN} more deliveries under way")


def _is_ending(tree: Tree, spec: DispatcherSpec) -> bool:
    return tree.supervisor.children[spec.id].state in {State.DRAINING, State.STOPPING}


def _requests(tree: Tree, spec: DispatcherSpec) -> Iterator[Cause]:
    """Yield the requests that a dispatcher drains, or that take long in a slot, the oldest first.

    What takes no slot, such as a websocket, is open for as long as its client likes, and keeps only a stop.
    """
    intake, is_ending = tree.intakes.get(spec.id), _is_ending(tree, spec)
    works = [] if intake is None else [(work.seconds, work) for work, counts in intake.works() if counts or is_ending]
    found = sorted((one for one in works if is_ending or one[0] >= LONG), key=lambda one: one[0], reverse=True)
    for seconds, work in found[:_SHOWN]:
        yield Cause(
            component=f"worker/{work.worker}" if work.worker else spec.id,
            what=f"serves {tree.masks.applied(work.label)[:100]!r} of {spec.id}",
            seconds=seconds,
            task=work.task,
        )
    if len(found) > _SHOWN:
        yield Cause(component=spec.id, what=f"has {len(found) - _SHOWN} more requests under way")


def _calls(tree: Tree, spec: DispatcherSpec) -> dict[int, tuple[str, float]]:
    """Return by the `id` of a delivery which worker handles it, and until when it may."""
    found: dict[int, tuple[str, float]] = {}
    for name in spec.workers:
        pool = tree.pools[name]
        for scope, delivery in pool.calls():
            found[id(_original(delivery))] = pool.spec.id, scope.deadline
    return found


def _original(delivery: Delivery) -> Delivery:
    while (inner := getattr(delivery, "original", None)) is not None:
        delivery = inner
    return delivery
