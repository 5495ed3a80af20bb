"""Manifest + registry -> `Plan`: the second arrow of a service's way. Pure: nothing is opened, nothing is started.

Finds everything that is wrong at once: each step reports and goes on, and only the end raises.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from .._core.contract import Contract
from .._core.masks import Masks
from .._core.passwords import masked_prose
from .._core.spec import (
    AnySpec,
    ComponentSpec,
    GroupSpec,
    HookSpec,
    Plan,
    StageSpec,
    StopBudget,
    Value,
    is_resident,
)
from .._core.words import listed
from .._manifest.manifest import Manifest
from .._manifest.names import is_name, named_like, nearest_name
from .._manifest.reading import read_tables
from .._manifest.registry import Registry
from ..errors import PlanError, Problem
from .addresses import taken_twice
from .advice import ask_drivers
from .asked import read_hooks
from .depends import depends_on
from .graph import dependents, edges_of, find_cycles, reverse, start_order, stop_budget
from .ground import Ground, Wired, Wiring, stop_timeout_of
from .groups import read_groups
from .holds import warn_of_holds
from .seldom import (
    Interceptors,
    check_contracts,
    read_interceptors,
    read_services,
    refused_answers,
    with_contracts,
    with_found_workers,
)
from .specs import Made, specs_of
from .staff import Hired, hire
from .stages import read_stages, with_stages
from .whole import joined, secrets_in, with_stages_of, with_tables_of
from .wiring import wire, with_lent
from .worker_checks import check_workers

if TYPE_CHECKING:
    from .inside import Part

_TOLERANCE: Final = 1e-6
"""Seconds that adding floats may be off."""


def resolve(manifest: Manifest, registry: Registry) -> Plan:
    """Check that a manifest fits together and to what is installed, and freeze what follows from it.

    Imports the plugins and workers that the manifest names, and no other.

    Raises:
        PlanError: listing every problem, if there is any.
    """
    return _resolve(manifest, registry, None, {})


def _resolve(
    manifest: Manifest,
    registry: Registry,
    lent: Mapping[str, Wired] | None,
    contracts: Mapping[str, Contract],
    *,
    processes: int | None = None,
) -> Plan:
    """Resolve a manifest.

    Args:
        manifest: Which.
        registry: What is installed.
        lent: If it is inside of another one, drivers of that, by the names that they have here: they are components
            of the plan, of which the outer one knows better.
        contracts: Of these.
        processes: How many processes the outer one runs in; what is inside runs in each of them.
    """
    problems: list[Problem] = []
    warnings = list(manifest.warnings)
    ground = _ground(manifest, registry, lent, contracts, processes, problems, warnings)
    name = _service_name(ground)
    made = _fitted(ground, problems)
    lives = _lives(ground, made.wiring, made.workers, made.groups, made.parts, made.interceptors)
    order = start_order(edges_of(lives))
    stages = read_stages(ground, dict(_classes(ground, order, made.wiring, made.workers)))
    stages = with_stages_of(made.parts, stages)
    budget = _prove(ground, lives, stages)
    hooks = read_hooks(ground)
    _warn_of_essential_users(ground, lives)
    if problems or budget is None or manifest.unknown:
        raise PlanError(problems)
    specs = specs_of(lives, made)
    problems += refused_answers(ground.manifest, name, joined(part.services for part in made.parts), specs)
    problems += _taken_addresses(ground.manifest, specs)
    if problems:
        raise PlanError(problems)
    _warn_of_idleness(ground, specs)
    components = {id_: specs[id_] for id_ in order}
    return _plan(ground, name, made, warnings, components=components, budget=budget, stages=stages, hooks=hooks)


def _taken_addresses(manifest: Manifest, specs: Mapping[str, AnySpec]) -> list[Problem]:
    """Return a problem for each component that another one keeps from listening."""
    found: list[Problem] = []
    for id_, text in taken_twice(specs):
        kind, *inner, name = id_.split("/")
        found.append(manifest.problem(("services", inner[0]) if inner else (f"{kind}s", name), text))
    return found


def _ground(
    manifest: Manifest,
    registry: Registry,
    lent: Mapping[str, Wired] | None,
    contracts: Mapping[str, Contract],
    processes: int | None,
    problems: list[Problem],
    warnings: list[Problem],
) -> Ground:
    """Return what all steps stand on; they report to the lists."""
    manifest = with_found_workers(manifest, registry, problems, warnings)

    masks = functools.cache(lambda: Masks.of(secrets_in(manifest)))

    def told(at: tuple[str, ...], text: str) -> Problem:
        return manifest.problem(at, masks().applied(text) if manifest.is_from_outside(at) else masked_prose(text))

    def report(at: tuple[str, ...], text: str) -> None:
        if not manifest.is_unknown(at):
            problems.append(told(at, text))

    tables = read_tables(manifest, report)
    tables = with_lent(tables, lent) if lent else tables
    return Ground(
        manifest=manifest,
        registry=registry.allowing(tables.kernel.plugins),
        tables=tables,
        report=report,
        warn=lambda at, text: warnings.append(told(at, text)),
        lent=lent,
        lent_contracts=contracts,
        processes=processes or tables.kernel.processes,
    )


def _fitted(ground: Ground, problems: list[Problem]) -> Made:
    """Load what the tables name, and fit it together."""
    wiring = with_contracts(ground, wire(ground))
    ask_drivers(ground, wiring)
    workers = hire(ground, wiring)
    check_workers(ground, wiring, workers)
    warn_of_holds(ground, wiring, workers)
    check_contracts(ground, wiring, workers)
    groups = read_groups(ground)
    parts = read_services(ground, wiring, functools.partial(_resolve, processes=ground.processes), problems)
    interceptors = read_interceptors(ground, wiring)
    return Made(wiring=wiring, workers=workers, groups=groups, parts=parts, interceptors=interceptors)


def _plan(
    ground: Ground,
    name: str,
    made: Made,
    warnings: Sequence[Problem],
    *,
    components: Mapping[str, AnySpec],
    budget: StopBudget,
    stages: tuple[StageSpec, ...],
    hooks: Sequence[HookSpec],
) -> Plan:
    """Freeze all of it."""
    manifest, tables, parts = ground.manifest, ground.tables, made.parts
    return Plan(
        path=manifest.path,
        name=name,
        grace_period=tables.kernel.grace_period,
        drain_timeout=tables.kernel.drain_timeout,
        protocols={**made.wiring.protocols, **joined(part.protocols for part in parts)},
        components=components,
        groups=[*made.groups, *(group for part in parts for group in part.groups)],
        budget=budget,
        warnings=tuple(sorted(set(warnings))),
        directory=manifest.directory.absolute(),
        hooks=(*hooks, *(hook for part in parts for hook in part.hooks)),
        stages=stages,
        services=joined(part.services for part in parts),
        log=tables.logging,
        control=tables.kernel.control,
        processes=tables.kernel.processes,
        process_restart=tables.kernel.process_restart,
        secrets=tuple(secrets_in(manifest)),
        tables=with_tables_of(parts, manifest.tables),
        problem=manifest.problem,
        values=functools.partial(_values, ground, name, made.wiring, made.workers, parts),
    )


def _values(
    ground: Ground, name: str, wiring: Wiring, workers: Mapping[str, Hired], parts: Sequence[Part]
) -> list[Value]:
    from .values import list_values  # noqa: PLC0415  only `kernel plan` asks

    return [*list_values(ground, name, wiring, workers), *(value for part in parts for value in part.values())]


def _service_name(ground: Ground) -> str:
    given = ground.tables.kernel.name
    if given is None:
        return named_like(ground.manifest.directory)
    if not is_name(given):
        meant = "" if ground.manifest.is_from_outside(("kernel", "name")) else nearest_name(given)  # it may be a secret
        hint = f'; write "{meant}"' * bool(meant)
        text = "must be at most 64 of A-Z, a-z, 0-9, _ and -, and start with a letter"
        ground.report(("kernel", "name"), f"{text}{hint}")
    return given


# --- what stands on what ------------------------------------------------------------------------------------------


def _lives(
    ground: Ground,
    wiring: Wiring,
    workers: Mapping[str, Hired],
    groups: Sequence[GroupSpec],
    parts: Sequence[Part],
    interceptors: Interceptors,
) -> dict[str, ComponentSpec]:
    """Return what the supervisor needs of every component, in the order of the manifest's kinds."""
    uses, after = _uses(wiring, workers), _after(workers, groups)
    intercepted = {
        id_: tuple(driver for one in several for driver in one.drivers.values())
        for id_, several in interceptors.items()
    }
    lives: dict[str, ComponentSpec] = {}
    inner: dict[str, ComponentSpec] = {id_: spec for part in parts for id_, spec in part.components.items()}
    known = {entry.id for entry in ground.tables.with_lives() if entry.table is not None}
    known |= inner.keys()
    for entry in ground.tables.with_lives():
        if entry.table is not None:
            depends = tuple(depends_on(ground, entry.at, entry.table.depends, parts))
            lives[entry.id] = ComponentSpec(
                id=entry.id,
                name=entry.name,
                where=ground.manifest.origin(entry.at),
                restart=entry.table.restart,
                essential=entry.table.essential,
                start_timeout=entry.table.start_timeout,
                stop_timeout=entry.table.stop_timeout,
                uses=_among(known, (*uses.get(entry.id, ()), *intercepted.get(entry.id, ()), *depends)),
                after=_among(known, after.get(entry.id, ())),
                on_reload=entry.table.on_reload == "restart",
            )
    return _surrounded(lives | inner, wiring)


def _surrounded(lives: dict[str, ComponentSpec], wiring: Wiring) -> dict[str, ComponentSpec]:
    """Have everything come after what surrounds the service, but for what that stands on itself."""
    wired = (*wiring.drivers.values(), *wiring.dispatchers.values())
    surrounding = [one for one in wired if one.cls is not None and one.cls.surrounds and one.entry.id in lives]
    around = [one.entry.id for one in surrounding]
    if not around:
        return lives
    below = set(dependents(reverse(edges_of(lives)), around))
    lives |= {one.entry.id: attrs.evolve(lives[one.entry.id], stop_timeout=stop_timeout_of(one)) for one in surrounding}
    return {
        id_: spec if id_ in below else attrs.evolve(spec, after=(*spec.after, *around)) for id_, spec in lives.items()
    }


def _among(known: set[str], ids: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(id_ for id_ in ids if id_ in known))


def _uses(wiring: Wiring, workers: Mapping[str, Hired]) -> dict[str, tuple[str, ...]]:
    wired = (*wiring.drivers.values(), *wiring.dispatchers.values())
    uses = {one.entry.id: (f"driver/{one.driver}",) for one in wired if one.driver}
    return uses | {
        worker.entry.id: (
            *worker.shape.injection.drivers.values(),
            *([f"driver/{worker.runs_in}"] if worker.runs_in else ()),
        )
        for worker in workers.values()
        if worker.shape
    }


def _after(workers: Mapping[str, Hired], groups: Sequence[GroupSpec]) -> dict[str, list[str]]:
    after: dict[str, list[str]] = {}
    for worker in workers.values():
        if worker.dispatcher:
            after.setdefault(f"dispatcher/{worker.dispatcher}", []).append(worker.entry.id)
        if worker.failure_worker:
            after.setdefault(worker.entry.id, []).append(f"worker/{worker.failure_worker}")
    for group in groups:
        for member, before in zip(group.members[1:], group.members, strict=False):
            after.setdefault(member, []).append(before)
    return after


def _classes(
    ground: Ground, order: Sequence[str], wiring: Wiring, workers: Mapping[str, Hired]
) -> Iterator[tuple[str, object]]:
    """Yield the manifest's own components with their classes."""
    wired = {one.entry.id: one.cls for one in (*wiring.drivers.values(), *wiring.dispatchers.values())}
    hired = {one.entry.id: one.shape.use for one in workers.values() if one.shape is not None}
    lent = {f"driver/{name}" for name in ground.lent or ()}
    return ((id_, wired.get(id_) or hired.get(id_)) for id_ in order if id_ not in lent)


# --- proofs -------------------------------------------------------------------------------------------------------


def _prove(ground: Ground, lives: Mapping[str, ComponentSpec], stages: Sequence[StageSpec]) -> StopBudget | None:
    """Return the stop budget if everything can be started in order and stopped in time, else report why not."""
    kernel = ground.tables.kernel
    cycles = find_cycles(edges_of(lives))
    for cycle in cycles:
        _report_cycle(ground, cycle, lives)
    if cycles or kernel.drain_timeout >= kernel.grace_period:
        return None
    closing = stop_budget(lives, drain_timeout=kernel.drain_timeout, grace_period=kernel.grace_period)
    budget = with_stages(closing, stages)
    is_known = not any("stop_timeout" in entry.wrong for entry in ground.tables.with_lives())
    # Of a service inside, the outer one proves it, with all that is around.
    if is_known and ground.lent is None and budget.seconds > budget.grace_period + _TOLERANCE:
        _report_budget(ground, budget)
    return budget


def _report_cycle(ground: Ground, cycle: Sequence[str], lives: Mapping[str, ComponentSpec]) -> None:
    places = {entry.id: entry.at for entry in ground.tables.with_lives()}
    steps = [f"{id_}{_line(ground, places[id_]) if id_ in places else f' ({lives[id_].where})'}" for id_ in cycle]
    text = " -> ".join([*steps, cycle[0]])
    at = next((places[id_] for id_ in cycle if id_ in places), ("services",))
    ground.report(at, f"can never start, because each of these waits for the next: {text}")


def _line(ground: Ground, at: tuple[str, ...]) -> str:
    file, line = ground.manifest.file(at), ground.manifest.line(at)
    if file != ground.manifest.path:
        return f" ({file}:{line})" if line else f" ({file})"
    return f" (line {line})" if line else ""


def _report_budget(ground: Ground, budget: StopBudget) -> None:
    parts = " + ".join(f"{wait.what} {wait.seconds!r}" for wait in budget.waits)
    text = f"a stop can take {round(budget.seconds, 3)!r} s ({parts}), more than grace_period = {budget.grace_period!r}"
    ground.report(("kernel", "grace_period"), f"{text}; raise it, or lower drain_timeout or a stop_timeout")


def _warn_of_essential_users(ground: Ground, lives: Mapping[str, ComponentSpec]) -> None:
    """Say where `essential = false` keeps nothing going, because what uses the component is essential."""
    uses = {id_: spec.uses for id_, spec in lives.items()}
    for entry in ground.tables.with_lives():
        spec = lives.get(entry.id)
        if spec is not None and not spec.essential:
            ends = [id_ for id_ in dependents(uses, [entry.id]) if lives[id_].essential]
            if ends:
                text = f"does not keep the service going: {listed(ends)} {'use' if ends[1:] else 'uses'} it"
                cure = "set essential = false there too, or leave it out here"
                ground.warn((*entry.at, "essential"), f"{text}, and {'are' if ends[1:] else 'is'} essential; {cure}")


def _warn_of_idleness(ground: Ground, specs: Mapping[str, AnySpec]) -> None:
    """Say that a service does nothing: what is there for others only has none of them. Of one inside, the outer one knows."""
    if ground.lent is None and all(map(is_resident, specs.values())):
        text = "nothing runs: there is no dispatcher, and no worker with run; the service waits until it is stopped"
        ground.warn(("kernel",), text)
