"""The stages of a service in their order, and who does something at each: read off the marks `@at` of its classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter
from types import FunctionType
from typing import Final, cast, final

import attrs

from .._convert.strict import is_table
from .._convert.structure import structure
from .._core.marks import stages_of
from .._core.spec import Direction, StageHook, StageSpec, StopBudget, Wait, Zone
from .._core.words import did_you_mean, listed
from .._manifest.registry import Registry
from .._manifest.tables import StageTable, under
from ..errors import PluginError
from .ground import Ground

RISING: Final = ("init", "before_start", "start", "after_start")
FALLING: Final = ("before_stop", "stop", "after_stop", "exit")
_NO_HOOKS: Final = ("start", "stop")
"""What opening and closing is."""
_ON_THE_WAY_UP: Final = 30.0
_ON_THE_WAY_DOWN: Final = 1.0
_BY_POSITION: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class _Place:
    """A stage in the order of all, with nobody at it yet."""

    name: str
    root: str
    """The stage of the kernel's own that it hangs on, directly or not."""
    zone: Zone
    table: StageTable

    @property
    def is_rising(self) -> bool:
        return self.root in RISING


def read_stages(ground: Ground, classes: Mapping[str, object]) -> tuple[StageSpec, ...]:
    """Return the stages at which anybody does anything, reporting what is wrong with them.

    Args:
        ground: The manifest, what is installed, and where problems go.
        classes: Id of each component -> its class, in start order; what is no class does nothing at a stage.
    """
    places = {place.name: place for place in _places(ground)}
    hooks: dict[str, list[StageHook]] = {}
    for id_, cls in classes.items():
        for stage, hook in _hooks(ground, id_, cls, places):
            hooks.setdefault(stage, []).append(hook)
    return tuple(_stage(place, hooks[name]) for name, place in places.items() if name in hooks)


def with_stages(budget: StopBudget, stages: Sequence[StageSpec]) -> StopBudget:
    """Return the longest that a stop can take, with what is done at stages on the way down."""
    falling = [stage for stage in stages if not stage.is_rising]
    before = [_wait(stage) for stage in falling if stage.zone is Zone.ALIVE]
    after = [_wait(stage) for stage in falling if stage.zone is not Zone.ALIVE]
    *closing, flush = budget.waits
    return attrs.evolve(budget, waits=(*before, *closing, *after, flush))


def _wait(stage: StageSpec) -> Wait:
    return Wait(f"stage {stage.name}", stage.timeout)


def _stage(place: _Place, hooks: Sequence[StageHook]) -> StageSpec:
    direction = place.table.direction or (Direction.FORWARD if place.is_rising else Direction.BACKWARD)
    timeout = place.table.timeout or (_ON_THE_WAY_UP if place.is_rising else _ON_THE_WAY_DOWN)
    return StageSpec(
        name=place.name,
        zone=place.zone,
        is_rising=place.is_rising,
        direction=direction,
        timeout=timeout,
        hooks=tuple(reversed(hooks) if direction is Direction.BACKWARD else hooks),
    )


# --- their order --------------------------------------------------------------------------------------------------


def _places(ground: Ground) -> Iterator[_Place]:
    tables = {**_of_plugins(ground.registry, ground), **ground.tables.stages}
    own = {name: table for name, table in tables.items() if name not in (*RISING, *FALLING)}
    _check_anchors(ground, tables, own)
    found: set[str] = set()
    for root in (*RISING, *FALLING):
        names = list(_around(root, own))
        found.update(names)
        for name in names:
            is_early = names.index(name) < names.index(root)
            yield _Place(name=name, root=root, zone=_zone(root, is_early), table=tables.get(name, StageTable()))
    for name in own.keys() - found if ground.tables.stages.keys() >= own.keys() - found else ():
        if _anchor(own[name]) in own:
            ground.report(("stages", name), "hangs on itself, by way of the stages that it comes before or after")


def _around(name: str, own: Mapping[str, StageTable]) -> Iterator[str]:
    """Yield what comes before a stage, the stage, and what comes after it, each with its own."""
    for one, table in own.items():
        if table.before == name:
            yield from _around(one, own)
    yield name
    for one, table in own.items():
        if table.after == name and table.before is None:
            yield from _around(one, own)


def _zone(root: str, is_early: bool) -> Zone:  # noqa: FBT001  which side of its root a stage is on
    if root in {"init", "exit"}:
        return Zone.PROCESS
    if root in {"after_start", "before_stop"} or (root == "start" and not is_early) or (root == "stop" and is_early):
        return Zone.ALIVE
    return Zone.LOOP


def _anchor(table: StageTable) -> str | None:
    return table.before or table.after


def _of_plugins(registry: Registry, ground: Ground) -> dict[str, StageTable]:
    stages: dict[str, StageTable] = {}
    for plugin in registry.plugins:
        if plugin.kind != "stage":
            continue
        report = under(ground.report, "stages", plugin.name)
        try:
            given = registry.load("stage", plugin.name)
        except PluginError as error:
            report((), str(error))
            continue
        table = structure(given, StageTable, report=report) if is_table(given) else None
        if not is_table(given):
            report((), f"{plugin} must name a mapping with the keys of a stage")
        if table is not None:
            stages[plugin.name] = table
    return stages


def _check_anchors(ground: Ground, tables: Mapping[str, StageTable], own: Mapping[str, StageTable]) -> None:
    known = [*RISING, *FALLING, *own]
    for name, table in tables.items():
        at, anchor = ("stages", name), _anchor(table)
        if name not in own:
            if anchor is not None:
                key = "before" if table.before else "after"
                ground.report((*at, key), f"{name} is a stage of the kernel's own, and stays where it is")
            if name in _NO_HOOKS:
                ground.report(at, "is what opening and closing is: its bounds are start_timeout and stop_timeout")
        elif anchor is None or (table.before and table.after):
            ground.report(at, 'must say where it is: either "after" or "before" another stage')
        elif anchor not in known:
            near = did_you_mean(anchor, known) or f"; there are: {listed(known)}"
            ground.report((*at, "before" if table.before else "after"), f'there is no stage "{anchor}"{near}')


# --- who takes part -----------------------------------------------------------------------------------------------


def _hooks(ground: Ground, id_: str, cls: object, places: Mapping[str, _Place]) -> Iterator[tuple[str, StageHook]]:
    if not isinstance(cls, type):
        return
    kind, _, key = id_.partition("/")
    for name, member in _marked(cls).items():
        for stage in stages_of(_inner(member)):
            for fault in _faults(cls, name, member, stage, places):
                ground.report((f"{kind}s", key), f"{cls.__qualname__}.{name} {fault}")
            takes = bool(_parameters(cls, name, member))
            yield stage, StageHook(component=id_, method=name, owner=cls, takes_reason=takes)


def _marked(cls: type[object]) -> dict[str, object]:
    members = {name: member for base in reversed(cls.__mro__[:-1]) for name, member in vars(base).items()}
    return {name: member for name, member in members.items() if stages_of(_inner(member))}


def _inner(member: object) -> object:
    """Return the function that a member of a class is, or holds; None if it is none."""
    if isinstance(member, classmethod | staticmethod):
        return cast("object", member.__func__)  # pyright: ignore[reportUnknownMemberType]  of whatever it takes
    return member if isinstance(member, FunctionType) else None


def _is_unbound(member: object) -> bool:
    """Return whether a member can be called without an object of its class."""
    return isinstance(member, classmethod | staticmethod)


def _faults(cls: type[object], name: str, member: object, stage: str, places: Mapping[str, _Place]) -> Iterator[str]:
    place = places.get(stage)
    if place is None or stage in _NO_HOOKS:
        known = [known for known in places if known not in _NO_HOOKS]
        near = did_you_mean(stage, known) or f"; there are: {listed(known)}"
        yield f'is marked with @at("{stage}"), and there is no such stage{near}'
        return
    function = cast("Callable[..., object]", getattr(cls, name))
    if place.zone is not Zone.ALIVE and not _is_unbound(member):
        yield f"is called at {stage}, when there is no object: make it a class method or a static method"
    if place.zone is Zone.PROCESS and inspect.iscoroutinefunction(function):
        yield f"is called at {stage}, when there is no event loop: it cannot be async"
    required = [one for one in _parameters(cls, name, member) if one.default is Parameter.empty]
    if place.is_rising and required:
        yield f"is called at {stage} without arguments, but needs {listed(one.name for one in required)}"
    elif len(required) > 1:
        yield f"is called at {stage} with the reason alone, but needs {listed(one.name for one in required)}"


def _parameters(cls: type[object], name: str, member: object) -> list[Parameter]:
    """Return what a method can be given by position, when it is called."""
    try:
        parameters = list(inspect.signature(cast("Callable[..., object]", getattr(cls, name))).parameters.values())
    except (ValueError, TypeError):
        return []
    bound = 0 if _is_unbound(member) else 1
    return [one for one in parameters[bound:] if one.kind in _BY_POSITION]
