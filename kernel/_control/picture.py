"""Snapshots and causes as JSON, and how many deliveries a dispatcher takes in a second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, final

import attrs
import trio

from .._core.snapshot import ComponentSnapshot, Snapshot
from .._supervise.why import Cause, Deadline

Json: TypeAlias = dict[str, object]

_APART: Final = 0.5
"""Seconds between two counts, at least."""
_OLD: Final = 60.0
"""Seconds after which a count says nothing any more."""


@final
@attrs.define(eq=False, repr=False)
class Rates:
    """Rates from counts at two moments. Counts nothing while nobody asks."""

    _at: float = attrs.field(default=-math.inf, init=False)
    _counts: Mapping[str, int] = attrs.field(factory=dict[str, int], init=False)

    async def measure(self, count: Callable[[], Mapping[str, int]]) -> dict[str, float]:
        """Return for each name how often it has counted in a second.

        Cancellation: Is a checkpoint.
        """
        if time.monotonic() - self._at > _OLD:
            self._at, self._counts = time.monotonic(), count()
        await trio.sleep(max(0.0, self._at + _APART - time.monotonic()))
        now, counts = time.monotonic(), count()
        rates = {name: max(0, number - self._counts.get(name, 0)) / (now - self._at) for name, number in counts.items()}
        self._at, self._counts = now, counts
        return rates


def service_as_json(snapshot: Snapshot, process: Mapping[str, object]) -> Json:
    """Return what is to be said of a service as a whole."""
    return {
        "service": snapshot.service,
        **process,
        "state": _state(snapshot),
        "reason": snapshot.reason,
        "seconds": round(snapshot.seconds, 3),
        "stopping_for": round(snapshot.stopping_for, 3),
        "blocked_for": round(snapshot.busy, 3) if snapshot.blocked_at else 0.0,
        "blocked_at": snapshot.blocked_at,
        "stop_budget": snapshot.stop_budget,
        "grace_period": snapshot.grace_period,
    }


def _state(snapshot: Snapshot) -> str:
    if snapshot.is_stopping:
        return "stopping"
    if snapshot.blocked_at:
        return "blocked"
    return "ready" if snapshot.is_ready else "not ready"


def tree_as_json(
    snapshot: Snapshot, *, rates: Mapping[str, float], deadlines: Mapping[str, Deadline], paused: frozenset[str]
) -> Json:
    """Return what is to be said of each component."""
    return {
        "components": [
            _component(one, rates.get(one.id), deadlines.get(one.id), paused=one.id in paused)
            for one in snapshot.components
        ]
    }


def _component(one: ComponentSnapshot, rate: float | None, deadline: Deadline | None, *, paused: bool) -> Json:
    return {
        "id": one.id,
        "state": one.state.value,
        "reason": one.reason,
        "seconds": round(one.seconds, 3),
        "essential": one.essential,
        "restarts": one.restarts,
        "error": one.error,
        "waits_for": list(one.waits_for),
        "in_flight": one.in_flight,
        "slots": one.slots,
        "usage": None if one.usage is None else attrs.asdict(one.usage),
        "backlog": None if one.backlog is None else attrs.asdict(one.backlog),
        "per_second": None if rate is None else round(rate, 1),
        "paused": paused,
        "deadline": None if deadline is None else {"what": deadline.what, "in": round(deadline.seconds, 3)},
    }


def cause_as_json(cause: Cause, *, now: float) -> Json:
    """Return what is to be said of what keeps a service waiting."""
    return {
        "component": cause.component,
        "what": cause.what,
        "seconds": round(cause.seconds, 3),
        "in": None if math.isinf(cause.until) else round(max(0.0, cause.until - now), 3),
        "then": cause.then,
        "where": cause.where,
    }
