"""Makes a `Snapshot` of a running tree. Reads only what any thread may read at any time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .._core.lifecycle import USABLE
from .._core.pulse import STALL, Pulse
from .._core.snapshot import ComponentSnapshot, Snapshot
from .._core.stacks import where_in_thread
from .._delivery.failure import describe
from .child import Child, obstacles_of
from .tree import Tree

T = TypeVar("T")


def look(tree: Tree, pulse: Pulse, *, now: float, began: float, stop_requested_at: float, stop_reason: str) -> Snapshot:
    """Return what a service looks like.

    Args:
        tree: Its components, which have been built.
        pulse: Of the event loop that they run in.
        now: By the clock of that loop.
        began: When it began to start.
        stop_requested_at: When it was asked to stop; infinite if it was not.
        stop_reason: What it was asked to stop for.
    """
    plan, busy, is_stopping = tree.plan, pulse.busy(), stop_requested_at <= now
    blocked = busy > STALL
    return Snapshot(
        service=plan.name,
        is_ready=not (is_stopping or blocked or tree.supervisor.missing or tree.is_held),
        is_stopping=is_stopping,
        reason=tree.masks.applied(stop_reason),
        seconds=now - began,
        stopping_for=now - stop_requested_at if is_stopping else 0.0,
        busy=busy,
        blocked_at=where_in_thread(pulse.thread) if blocked else "",
        components=tuple(_component(tree, child, now) for child in tree.supervisor.children.values()),
        stop_budget=plan.budget.seconds,
        grace_period=plan.grace_period,
        drain_timeout=plan.drain_timeout,
    )


def _component(tree: Tree, child: Child, now: float) -> ComponentSnapshot:
    intake = tree.intakes.get(child.id)
    return ComponentSnapshot(
        id=child.id,
        state=child.state,
        reason=tree.masks.applied(child.reason),
        seconds=max(0.0, now - child.moved_at),
        essential=child.essential,
        restarts=max(0, child.lives - 1),
        error="" if child.error is None else describe(child.error, tree.masks.applied),
        waits_for=tuple(dict.fromkeys(one.id for one in obstacles_of(child))),
        in_flight=None if intake is None else intake.in_flight,
        slots=None if intake is None else intake.concurrency,
        taken=None if intake is None else intake.taken,
        usage=_asked(tree.usages.get(child.id), child),
        backlog=_asked(tree.backlogs.get(child.id), child),
    )


def _asked(ask: Callable[[], T] | None, child: Child) -> T | None:
    """Return what a component says of itself; what it gets wrong there must not blind whoever looks."""
    try:
        return None if ask is None or child.state not in USABLE else ask()
    except Exception:  # noqa: BLE001  as above
        return None
