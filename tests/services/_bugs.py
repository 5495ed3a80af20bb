"""Faults that a fuzz must notice: each is planted into the running half, and the promise that it breaks is named."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import Context, copy_context
from typing import Any, Final
from unittest.mock import patch

from kernel import Ack, Return
from kernel._delivery import collect, judge, runners
from kernel._delivery.attempt import Verdict
from kernel._delivery.intake import KernelIntake
from kernel._delivery.kill_switch import KillSwitch
from kernel._supervise.life import Life
from kernel._supervise.supervisor import Supervisor

Plant = Callable[[], AbstractContextManager[Any]]


def _instead(owner: object, name: str, make: Callable[[Any], Any]) -> Plant:
    """Return what puts something else in the place of what is there, and takes it away again."""
    return lambda: patch.object(owner, name, make(getattr(owner, name)))


def _settled_twice(ended: Any) -> Any:
    def again(self: Any, errand: Any, verdict: Any, *more: Any) -> None:
        if isinstance(verdict.outcome, Return):
            self._settle_nowait(errand.delivery, verdict.outcome)
        ended(self, errand, verdict, *more)

    return again


def _keeps_its_slot(ended: Any) -> Any:
    def keep(self: Any, errand: Any, verdict: Any, *more: Any) -> None:
        self._free -= errand.revocable is not None and errand.revocable.scope.cancel_called
        ended(self, errand, verdict, *more)

    return keep


def _lost_at_the_cut(end: Any) -> Any:
    def lose(self: Any, runner: Any, verdict: Any) -> Any:
        return None if verdict is runners._RETURNED else end(self, runner, verdict)

    return lose


def _drains_for_ever(request_stop: Any) -> Any:
    def request(self: Any, *, drain_until: float) -> None:
        request_stop(self, drain_until=max(drain_until, 1e9) if drain_until > -math.inf else drain_until)

    return request


def _keeps_its_deadline(hold: Any) -> Any:
    def keep(self: Any, deadline: float) -> None:
        hold(self, min(deadline, max(self.deadline, self.began)))

    return keep


def _one_context(_: Any) -> Any:
    first: list[Context] = []

    def again() -> Context:
        first.append(copy_context())
        return first[0].copy()

    return again


def _forgets_the_last(fail: Any) -> Any:
    def forget(self: Any, items: Any, error: Any) -> None:
        fail(self, items[:-1] if len(items) > 1 else items, error)

    return forget


def _never_closes(decide: Any) -> Any:
    return lambda self, *, failed: decide(self, failed=True)


BUGS: Final[Mapping[str, Plant]] = {
    "what is cut is not settled": _instead(runners.Runners, "_end", _lost_at_the_cut),
    "what is cut is acknowledged": _instead(runners, "_RETURNED", lambda _: Verdict(Ack())),
    "what goes back is settled twice": _instead(KernelIntake, "_ended", _settled_twice),
    "what is revoked keeps its slot": _instead(KernelIntake, "_ended", _keeps_its_slot),
    "what is revoked is not forgotten": _instead(KernelIntake, "_forget", lambda _: lambda self, revocable: None),
    "the last of a batch that failed is forgotten": _instead(collect.Collector, "_fail", _forgets_the_last),
    "a call has the deadline of the call before": _instead(runners.Leash, "hold", _keeps_its_deadline),
    "a call has no deadline": _instead(runners.Leash, "hold", lambda _: lambda self, deadline: None),
    "all run in the context of the first": _instead(runners, "copy_context", _one_context),
    "what is late is started": _instead(judge, "is_late", lambda _: lambda delivery: False),
    "a kill switch never closes": _instead(KillSwitch, "_judge", _never_closes),
    "the drain has no deadline": _instead(Life, "request_stop", _drains_for_ever),
    "a stop is not hastened": _instead(Supervisor, "hasten", lambda _: lambda self: None),
}
"""What is wrong -> what plants it while inside."""
