"""A plan as part of another one: everything in it under a name of its own, and what the outer one has in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, final

import attrs

from .._convert.strict import is_table
from .._core.event import Event
from .._core.spec import (
    AnySpec,
    DispatcherSpec,
    DriverSpec,
    GroupSpec,
    HookSpec,
    InterceptorSpec,
    Plan,
    ProtocolSpec,
    ServiceSpec,
    StageSpec,
    Value,
    WorkerSpec,
)
from .._manifest.tables import SECTIONS, ServiceTable

_SHOWN: Final = (*SECTIONS.values(), "groups", "stages", "services")
"""Tables of which something is in effect inside of another service."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Part:
    """What a service inside becomes in the plan of the outer one."""

    name: str
    components: Mapping[str, AnySpec]
    protocols: Mapping[str, ProtocolSpec]
    groups: Sequence[GroupSpec]
    stages: Sequence[StageSpec]
    hooks: Sequence[HookSpec]
    services: Mapping[str, ServiceSpec]
    tables: Mapping[str, Mapping[str, object]]
    values: Callable[[], Sequence[Value]]


def inside(plan: Plan, name: str, table: ServiceTable, *, where: str, lent: Mapping[str, str]) -> Part:
    """Return a plan as part of another one.

    Args:
        plan: In which drivers that are lent have components of their own.
        name: Of `[services.NAME]`.
        table: What that says.
        where: `file:line` of it.
        lent: Id of a driver in the plan -> that of the outer plan's driver in its place.
    """
    moved = _Moved(name, lent)
    own = {id_: spec for id_, spec in plan.components.items() if id_ not in lent}
    service = ServiceSpec(
        name=name,
        service=plan.name,
        directory=plan.directory,
        where=where,
        essential=table.essential,
        vital=frozenset(moved.id(id_) for id_, spec in own.items() if spec.essential),
        main=table.main,
        restart=table.restart,
    )
    components = (moved.component(spec, essential=table.essential) for spec in own.values())
    return Part(
        name=name,
        components={spec.id: spec for spec in components},
        protocols={moved.name(key): attrs.evolve(spec, name=moved.name(key)) for key, spec in plan.protocols.items()},
        groups=[moved.group(group) for group in plan.groups],
        stages=[moved.stage(stage) for stage in plan.stages],
        hooks=[moved.hook(hook) for hook in plan.hooks],
        services={name: service, **{inner.name: inner for inner in map(moved.service, plan.services.values())}},
        tables={section: moved.table(plan.tables.get(section)) for section in SECTIONS.values()},
        values=lambda: list(moved.values(plan.values())),
    )


@final
@attrs.frozen(eq=False, repr=False)
class _Moved:
    """Gives what is in a plan the names that it has in the outer one."""

    _within: str
    _lent: Mapping[str, str]

    def name(self, name: str) -> str:
        return f"{self._within}/{name}"

    def id(self, id_: str) -> str:
        kind, _, name = id_.partition("/")
        return self._lent.get(id_) or f"{kind}/{self._within}/{name}"

    def id_or_none(self, id_: str | None) -> str | None:
        return None if id_ is None else self.id(id_)

    def name_or_none(self, name: str | None) -> str | None:
        return None if name is None else self.name(name)

    def ids(self, ids: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(self.id, ids))

    def component(self, spec: AnySpec, *, essential: bool) -> AnySpec:
        moved = attrs.evolve(
            spec,
            id=self.id(spec.id),
            name=self.name(spec.name),
            essential=spec.essential and essential,
            uses=self.ids(spec.uses),
            after=self.ids(spec.after),
        )
        match moved:
            case DriverSpec():
                return attrs.evolve(
                    moved,
                    driver=self.id_or_none(moved.driver),
                    protocol=self.name_or_none(moved.protocol),
                    interceptors=tuple(map(self.interceptor, moved.interceptors)),
                )
            case DispatcherSpec():
                return attrs.evolve(
                    moved,
                    driver=self.id_or_none(moved.driver),
                    protocol=self.name_or_none(moved.protocol),
                    workers=tuple(map(self.name, moved.workers)),
                    interceptors=tuple(map(self.interceptor, moved.interceptors)),
                )
            case WorkerSpec():
                return attrs.evolve(
                    moved,
                    dispatcher=self.id_or_none(moved.dispatcher),
                    drivers={parameter: self.id(driver) for parameter, driver in moved.drivers.items()},
                    runs_in=self.id_or_none(moved.runs_in),
                    failure_worker=self.name_or_none(moved.failure_worker),
                )

    def interceptor(self, spec: InterceptorSpec) -> InterceptorSpec:
        return attrs.evolve(spec, drivers={parameter: self.id(driver) for parameter, driver in spec.drivers.items()})

    def table(self, named: object) -> Mapping[str, object]:
        return {self.name(key): table for key, table in named.items()} if is_table(named) else {}

    def group(self, group: GroupSpec) -> GroupSpec:
        return attrs.evolve(group, name=self.name(group.name), members=self.ids(group.members))

    def stage(self, stage: StageSpec) -> StageSpec:
        hooks = tuple(attrs.evolve(hook, component=self.id(hook.component)) for hook in stage.hooks)
        return attrs.evolve(stage, name=self.name(stage.name), hooks=hooks)

    def hook(self, hook: HookSpec) -> HookSpec:
        return attrs.evolve(hook, name=self.name(hook.name), call=partial(_hear, self._within, hook.call))

    def service(self, service: ServiceSpec) -> ServiceSpec:
        return attrs.evolve(service, name=self.name(service.name), vital=frozenset(map(self.id, service.vital)))

    def values(self, values: Sequence[Value]) -> Iterator[Value]:
        for value in values:
            table, dot, rest = value.path.removeprefix("[").partition(".")
            if dot and table in _SHOWN:
                yield attrs.evolve(value, path=f"[{table}.{self._within}/{rest}")


def _hear(within: str, call: Callable[[Event], object], event: Event) -> None:
    """Tell a hook of a service what happens in it, and to all of the process."""
    _, slash, name = event.component.partition("/")
    if not slash or name.startswith(f"{within}/"):
        call(event)
