"""`[services.NAME]`: the manifests inside of one become parts of its plan, wired to drivers of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final, TypeAlias, final

import attrs

from .._convert.folder import add_to_path
from .._convert.strict import is_table
from .._core.contract import Contract
from .._core.router import pattern_matches
from .._core.spec import AnySpec, DispatcherSpec, Plan, ServiceSpec, WorkerSpec
from .._core.topologies import topologies_of
from .._core.words import did_you_mean, listed
from .._manifest.manifest import Manifest
from .._manifest.registry import Registry
from .._manifest.tables import DriverTable, Entry, ServiceTable
from ..errors import InvalidError, Problem
from .depends import depends_on
from .ground import Ground, Wired, Wiring, refer
from .inside import Part, inside

Resolve: TypeAlias = Callable[[Manifest, Registry, Mapping[str, Wired], Mapping[str, Contract]], Plan]
_OF_THE_PROCESS: Final[Mapping[str, frozenset[str]]] = {
    "kernel": frozenset({"grace_period", "drain_timeout", "control", "processes", "process_restart"}),
    "logging": frozenset(),
}
"""Tables and those of their keys, all if none is named, that hold for a process as a whole."""


def read_services(ground: Ground, wiring: Wiring, resolve: Resolve, problems: list[Problem]) -> list[Part]:
    """Resolve the manifests inside of one.

    Args:
        ground: Of the outer manifest.
        wiring: Its drivers, which may be lent.
        resolve: Makes the plan of a manifest, given the drivers that it is lent, and their contracts.
        problems: Takes what is wrong in their own manifests.
    """
    parts: list[Part] = []
    for name, table in ground.tables.services.items():
        manifest = ground.manifest.services.get(name)
        if manifest is None:
            continue
        if _sets_in_vain(ground, name, table):
            continue
        lent = {inner: _borrowed(ground, wiring, name, inner, outer) for inner, outer in table.drivers.items()}
        contracts = {inner: wiring.contracts[one] for inner, one in table.drivers.items() if one in wiring.contracts}
        try:
            add_to_path(manifest.directory, owner=ground.manifest.directory)
            plan = resolve(manifest, ground.registry, lent, contracts)
        except InvalidError as error:
            problems += error.problems
            continue
        _check_lent(ground, name, table, plan, manifest)
        if not wiring.drivers.keys() >= set(table.drivers.values()):
            continue  # which has been told
        parts.append(
            inside(
                plan,
                name,
                table,
                where=ground.manifest.origin(("services", name)),
                lent={f"driver/{inner}": f"driver/{outer}" for inner, outer in table.drivers.items()},
            )
        )
    return [_after_others(ground, part, parts) for part in parts]


def _sets_in_vain(ground: Ground, name: str, table: ServiceTable) -> bool:
    """Report what is laid over a manifest inside and is of the process, which the outer one is; return if any is."""
    found = [
        (section, key)
        for section, keys in _OF_THE_PROCESS.items()
        for key in _keys(table.set.get(section))
        if not keys or key in keys
    ]
    for section, key in found:
        text = f"has no effect: there is one process, and [{section}].{key} of the manifest that is run holds for all in it"
        ground.report(("services", name, "set", section, key), text)
    return bool(found)


def _keys(table: object) -> Iterable[str]:
    return table if is_table(table) else ()


def _after_others(ground: Ground, part: Part, parts: Sequence[Part]) -> Part:
    """Return a service inside, all of which uses what its table says that it depends on."""
    name = part.name
    depends = tuple(depends_on(ground, ("services", name), ground.tables.services[name].depends, parts))
    if not depends:
        return part
    components = {id_: attrs.evolve(spec, uses=(*spec.uses, *depends)) for id_, spec in part.components.items()}
    return attrs.evolve(part, components=components)


def _borrowed(ground: Ground, wiring: Wiring, service: str, inner: str, outer: str) -> Wired:
    """Return a driver of the outer manifest; one of which nothing is known, if there is none."""
    at = ("services", service, "drivers", inner)
    if refer(ground.tables, "driver", outer, at, ground.report) is not None:
        return wiring.drivers[outer]
    entry = Entry(id=f"driver/{outer}", name=outer, at=at, table=DriverTable(), wrong=frozenset(), given={})
    return Wired(entry=entry, cls=None, config=None, driver=None, protocol=None)


def _check_lent(ground: Ground, name: str, table: ServiceTable, plan: Plan, manifest: Manifest) -> None:
    """Report drivers that nobody inside has asked for."""
    used = {id_ for spec in plan.components.values() for id_ in spec.uses}
    for inner in table.drivers:
        if inner not in manifest.replaced and f"driver/{inner}" not in used:
            known = [*manifest.replaced, *(id_.removeprefix("driver/") for id_ in plan.components if "driver/" in id_)]
            others = [one for one in dict.fromkeys(known) if one not in table.drivers]
            there_are = f"; there are: {listed(others)}" if others else ""
            text = f'{manifest.path} has no driver "{inner}", and uses none of that name'
            ground.report(("services", name, "drivers", inner), f"{text}{did_you_mean(inner, others) or there_are}")


# --- calls with two answers ---------------------------------------------------------------------------------------


def refused_answers(
    manifest: Manifest, name: str, services: Mapping[str, ServiceSpec], components: Mapping[str, AnySpec]
) -> Iterator[Problem]:
    """Yield a problem for each call that would be answered twice.

    Args:
        manifest: The outer one.
        name: Of its service.
        services: Those inside.
        components: Of all.
    """

    def service_of(id_: str) -> str:
        service = services.get(id_.partition("/")[2].rpartition("/")[0])
        return name if service is None else service.service

    for id_, text in answered_twice(components, service_of):
        inner = id_.split("/")[1:-1]
        yield manifest.problem(("services", inner[0]) if inner else ("workers", id_.partition("/")[2]), text)


def answered_twice(components: Mapping[str, AnySpec], service_of: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with calls that would be answered by two: the id of the later one, and the text.

    Source: service-framework, where an inline connection may have one target that returns.

    Args:
        components: By id.
        service_of: Id -> the name of its service.
    """
    dispatchers = [spec for spec in components.values() if isinstance(spec, DispatcherSpec)]
    answers = [one for spec in dispatchers for one in _answers(spec, components, service_of(spec.id))]
    for first, second in combinations(answers, 2):
        if first.driver == second.driver and not first.queues & second.queues and (subject := first.shared(second)):
            text = f'"{subject}" is answered by {first.worker} ({components[first.worker].where}) already'
            yield second.worker, f"{text}, and {second.worker} gets it too, over {first.driver}: a call has one answer"


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class _Answers:
    """A handler that answers calls which come over a broker."""

    worker: str
    driver: str
    queues: frozenset[str]
    bindings: frozenset[tuple[str, str]]
    """Exchange and pattern."""
    subject: str

    def shared(self, other: _Answers) -> str:
        """Return a subject that both answer."""
        reached = {exchange for exchange, pattern in self.bindings if pattern_matches(pattern, self.subject)}
        others = {exchange for exchange, pattern in other.bindings if pattern_matches(pattern, other.subject)}
        return self.subject if self.subject == other.subject and reached & others else ""


def _answers(spec: DispatcherSpec, components: Mapping[str, AnySpec], service: str) -> Iterator[_Answers]:
    workers = [worker for name in spec.workers if isinstance(worker := components[f"worker/{name}"], WorkerSpec)]
    subjects = [
        (worker.id, pattern)
        for worker in workers
        for handler in worker.handlers
        if handler.parameters is not None
        for pattern in handler.patterns
    ]
    if spec.driver is None or not subjects:
        return
    found = topologies_of(spec, components, service=service)
    bindings = [binding for topology in found for binding in topology.bindings]
    for id_, subject in subjects:
        yield _Answers(
            worker=id_,
            driver=spec.driver,
            queues=frozenset(one.queue for one in bindings),
            bindings=frozenset((one.exchange, one.pattern) for one in bindings),
            subject=subject,
        )
