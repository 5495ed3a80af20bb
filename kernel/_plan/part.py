"""A part of a plan: the components that somebody names, and all that these stand on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

import attrs

from .._core.spec import AnySpec, DispatcherSpec, Plan, WorkerSpec
from .._core.words import did_you_mean, listed
from ..errors import PlanError, Problem
from .graph import stop_budget

KINDS: Final = ("driver", "dispatcher", "worker")
"""In the order in which a name without a kind is looked for."""


def named(plan: Plan, names: Iterable[str]) -> dict[str, str]:
    """Return the ids of components by the names that somebody gave them: `kind/name`, or the name alone.

    Raises:
        PlanError: if there is no such component, or there are several; with all that is wrong.
    """
    found = {name: _ids(plan, name) for name in names}
    problems = [Problem(plan.path, 0, "", _fault(plan, name, ids)) for name, ids in found.items() if len(ids) != 1]
    if problems:
        raise PlanError(problems)
    return {name: ids[0] for name, ids in found.items()}


def _ids(plan: Plan, name: str) -> list[str]:
    """Return what a name may mean; that of a component of a service inside is `NAME/name`."""
    is_id = name.partition("/")[0] in KINDS and "/" in name
    return [id_ for id_ in ([name] if is_id else [f"{kind}/{name}" for kind in KINDS]) if id_ in plan.components]


def _fault(plan: Plan, name: str, ids: list[str]) -> str:
    if ids:
        return f'"{name}" may mean {listed(ids, last="or")}; say one of them'
    known = list(plan.components) if "/" in name else [spec.name for spec in plan.components.values()]
    return f'there is no component "{name}"{did_you_mean(name, known) or f"; there are: {listed(known)}"}'


def part_of(plan: Plan, ids: Iterable[str], *, user: WorkerSpec | None = None) -> Plan:
    """Return a plan of the components with these ids and all that they stand on, in start order, without stages.

    Args:
        plan: The whole.
        ids: What is wanted.
        user: A worker that is not in the plan, and uses some of it.
    """
    kept = _below(plan, ids)
    components: dict[str, AnySpec] = {id_: _alone(spec, kept) for id_, spec in plan.components.items() if id_ in kept}
    if user is not None:
        components[user.id] = user
    drains = any(isinstance(spec, DispatcherSpec) for spec in components.values())
    drain_timeout = plan.drain_timeout if drains else 0.0
    budget = stop_budget(components, drain_timeout=drain_timeout, grace_period=plan.grace_period)
    grace_period = max(plan.grace_period, budget.seconds)
    return attrs.evolve(
        plan,
        components=components,
        protocols={name: spec for name, spec in plan.protocols.items() if name in _spoken(components)},
        stages=(),
        groups=tuple(group for group in plan.groups if kept.issuperset(group.members)),
        grace_period=grace_period,
        drain_timeout=drain_timeout,
        budget=attrs.evolve(budget, grace_period=grace_period),
    )


def _below(plan: Plan, ids: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(ids)
    while waiting:
        id_ = waiting.pop()
        if id_ not in found:
            found.add(id_)
            waiting += _needs(plan.components[id_])
    return found


def _needs(spec: AnySpec) -> Iterator[str]:
    """Yield what a component does not work without; what only comes before it in the whole is not part of that."""
    yield from spec.uses
    if isinstance(spec, DispatcherSpec):
        yield from (f"worker/{name}" for name in spec.workers)
    if isinstance(spec, WorkerSpec) and spec.failure_worker is not None:
        yield f"worker/{spec.failure_worker}"


def _alone(spec: AnySpec, kept: Collection[str]) -> AnySpec:
    """Return a component without what is not kept: what comes before it, and who brings its deliveries."""
    spec = attrs.evolve(spec, after=tuple(id_ for id_ in spec.after if id_ in kept))
    if isinstance(spec, WorkerSpec) and spec.dispatcher is not None and spec.dispatcher not in kept:
        spec = attrs.evolve(spec, dispatcher=None, options=None)
    return spec


def _spoken(components: Mapping[str, AnySpec]) -> set[str]:
    return {spec.protocol for spec in components.values() if not isinstance(spec, WorkerSpec) and spec.protocol}


def free_id(plan: Plan, name: str) -> str:
    """Return an id for a worker that no component of the plan has."""
    while f"worker/{name}" in plan.components:
        name += "_"
    return f"worker/{name}"
