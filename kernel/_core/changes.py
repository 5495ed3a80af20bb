"""What differs between two plans of one service, and who restarts for it: what a reload does, before it does it. Pure.

Two specifications are the same if all that follows from them is: where a component's table stands, what is only started
before it, and whether a default is written out or left out, say nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final, cast, final

import attrs

from ..errors import Problem
from .components import Dispatcher
from .contract import Contract
from .spec import AnySpec, DispatcherSpec, HandlerSpec, Plan, ProtocolSpec, Strategy, WorkerSpec, is_resident

_NOTHING_BUT_ORDER: Final = frozenset({"where", "after", "uses", "on_reload", "workers"})
"""Fields that are no part of what a component is, or are compared in another way."""
_THE_COMPONENTS_OWN: Final = frozenset({"config", "options"})
"""Fields whose values are of classes that the kernel does not know."""
_CODE: Final[Mapping[type[object], frozenset[str]]] = {
    HandlerSpec: frozenset({"convert", "check_result"}),
    Contract: frozenset({"clauses", "client_class"}),
}
"""Class of a value -> its fields that hold functions which are made anew with each plan, of what the others say."""


@final
@attrs.frozen(kw_only=True)
class Changes:
    """What a reload does. Ids of components, in start order."""

    changed: tuple[str, ...] = ()
    """Those that are specified in another way."""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    """Those that are changed, and those that restart with what is changed or removed."""
    protocols: tuple[str, ...] = ()
    """Names of the protocols that are new, or specified in another way."""

    @property
    def is_nothing(self) -> bool:
        """Whether no component is stopped or started."""
        return not (self.added or self.removed or self.restarted)

    def __bool__(self) -> bool:
        return not self.is_nothing


def changes(old: Plan, new: Plan, *, stale: Collection[str] = ()) -> Changes:
    """Return what differs between two plans of one service.

    Args:
        old: What runs.
        new: What is to run.
        stale: Ids of components that have changed although their specification has not, such as those whose files have.
    """
    both = [id_ for id_ in new.components if id_ in old.components]
    protocols = tuple(name for name in new.protocols if not _is_same_protocol(old, new, name))
    changed = {id_ for id_ in both if id_ in stale or _differs(old, new, id_, protocols)}
    removed = tuple(id_ for id_ in old.components if id_ not in new.components)
    restarted = _restarting(old, new, {*changed, *removed}) & {*both}
    return Changes(
        changed=tuple(id_ for id_ in both if id_ in changed),
        added=tuple(id_ for id_ in new.components if id_ not in old.components),
        removed=removed,
        restarted=tuple(id_ for id_ in both if id_ in restarted),
        protocols=protocols,
    )


def fixed(old: Plan, new: Plan) -> list[Problem]:
    """Return what a service that runs cannot take over.

    What it is called, where it is heard, how many processes it has, and nothing to do.
    """
    found = {
        ("kernel", "name"): old.name == new.name,
        ("kernel", "control"): old.control == new.control,
        ("logging", "format"): old.log.format == new.log.format,
        ("logging", "file"): same(old.log.file, new.log.file),
    }
    text = "cannot change while the service runs: restart it, or leave this as it was"
    problems = [new.problem(at, text) for at, is_same in found.items() if not is_same]
    if old.processes != new.processes:
        text = "is read when the service starts: stop it and start it, or leave this as it was"
        problems.append(new.problem(("kernel", "processes"), text))
    if _has_work(old) and not _has_work(new):
        text = "leaves nothing to run, so that the service would end: stop it by `kernel stop`, or leave something"
        problems.append(new.problem(("kernel",), text))
    return problems


def _has_work(plan: Plan) -> bool:
    return not all(map(is_resident, plan.components.values()))


# --- one component ------------------------------------------------------------------------------------------------


def _differs(old: Plan, new: Plan, id_: str, protocols: Collection[str]) -> bool:
    before, after = old.components[id_], new.components[id_]
    return (
        after.on_reload
        or getattr(after, "protocol", None) in protocols
        or {*before.uses} != {*after.uses}
        or _fields_differ(before, after, of_one_table=_has_same_table(old, new, id_))
        or _surroundings(old, before) != _surroundings(new, after)
        or (
            isinstance(before, DispatcherSpec)
            and isinstance(after, DispatcherSpec)
            and _is_fed_otherwise(old, new, id_)
        )
    )


def _fields_differ(before: object, after: object, *, of_one_table: bool) -> bool:
    if type(before) is not type(after):
        return True
    skipped = _NOTHING_BUT_ORDER | _THE_COMPONENTS_OWN if of_one_table else _NOTHING_BUT_ORDER
    for field in attrs.fields(type(cast("attrs.AttrsInstance", before))):
        one, other = getattr(before, field.name), getattr(after, field.name)
        if field.name not in skipped and not same(one, other):
            return True
    return False


def _surroundings(plan: Plan, spec: AnySpec) -> object:
    """Return what else decides how a component lives: the class that hosts a worker."""
    if not isinstance(spec, WorkerSpec) or spec.dispatcher is None:
        return None
    return cast("DispatcherSpec", plan.components[spec.dispatcher]).cls


def _is_fed_otherwise(old: Plan, new: Plan, id_: str) -> bool:
    """Return whether a dispatcher has to look at its workers again, which it does when it begins to accept."""
    before, after = (_candidates(plan, cast("DispatcherSpec", plan.components[id_])) for plan in (old, new))
    return not same(before, after)


def _candidates(plan: Plan, spec: DispatcherSpec) -> list[object]:
    # Their order decides where several may serve the same, and nowhere else.
    is_ordered = spec.fan_out or not spec.cls.delivers
    names = spec.workers if is_ordered else sorted(spec.workers)
    workers = [cast("WorkerSpec", plan.components[f"worker/{name}"]) for name in names]
    reads_marks = spec.cls.worker_topology.__func__ is not Dispatcher.worker_topology.__func__  # type: ignore[attr-defined]
    return [(worker.name, worker.options, worker.use if reads_marks else None) for worker in workers]


def _has_same_table(old: Plan, new: Plan, id_: str) -> bool:
    before, after = _table(old, id_), _table(new, id_)
    return before is not None and before == after


def _table(plan: Plan, id_: str) -> object:
    kind, _, name = id_.partition("/")
    section = plan.tables.get(f"{kind}s")
    return cast("Mapping[str, object]", section).get(name) if isinstance(section, Mapping) else None


def _is_same_protocol(old: Plan, new: Plan, name: str) -> bool:
    before: ProtocolSpec | None = old.protocols.get(name)
    id_ = f"protocol/{name}"
    return before is not None and not _fields_differ(
        before, new.protocols[name], of_one_table=_has_same_table(old, new, id_)
    )


# --- those that restart with it -----------------------------------------------------------------------------------


def _restarting(old: Plan, new: Plan, roots: Iterable[str]) -> set[str]:
    """Return some components and all that restart with them: their users and their groups', and theirs in turn."""
    found: set[str] = set()
    todo = [*roots]
    while todo:
        id_ = todo.pop()
        if id_ not in found:
            found.add(id_)
            todo += [*_users(old, id_), *_users(new, id_), *_followers(new, id_)]
    return found


def _users(plan: Plan, id_: str) -> Iterator[str]:
    return (other for other, spec in plan.components.items() if id_ in spec.uses)


def _followers(plan: Plan, id_: str) -> Iterator[str]:
    for group in plan.groups:
        if id_ in group.members and group.strategy is not Strategy.ONE_FOR_ONE:
            is_all = group.strategy is Strategy.ONE_FOR_ALL
            yield from group.members[0 if is_all else group.members.index(id_) + 1 :]


# --- values -------------------------------------------------------------------------------------------------------


def same(one: object, other: object) -> bool:
    """Return whether two values mean the same, also where their class does not say when its objects are equal."""
    if one is other:
        return True
    if isinstance(one, str) and isinstance(other, str):
        return one == other
    if type(one) is not type(other):
        return False
    parts, others = _parts(one), _parts(other)
    if parts is None or others is None:
        return _is_equal(one, other)
    return parts.keys() == others.keys() and all(same(part, others[key]) for key, part in parts.items())


def _parts(value: object) -> Mapping[object, object] | None:
    """Return what a value consists of, if it is nothing but that."""
    if isinstance(value, Mapping):
        return cast("Mapping[object, object]", value)
    if isinstance(value, list | tuple):
        return dict(enumerate(cast("list[object]", value)))
    if isinstance(value, functools.partial):
        made = cast("functools.partial[object]", value)
        return {"func": made.func, "args": made.args, "keywords": made.keywords}
    cls = type(value)
    if not attrs.has(cls):
        return None
    names = (field.name for field in attrs.fields(cls))
    return {name: getattr(value, name) for name in names if name not in _CODE.get(cls, ())}


def _is_equal(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001  a class of a plugin's or the user's: what cannot be compared has changed
        return False
