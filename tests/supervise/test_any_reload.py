"""What holds for every reload, whatever the two manifests are."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kernel import Plan
from kernel._core.events import EventHub
from kernel._manifest.manifest import from_mapping
from kernel._plan.plan import resolve
from kernel._supervise.lives import BODIES
from kernel._supervise.supervisor import Supervisor
from kernel._supervise.tree import Tree
from kernel.testing import fake_context, open_kernel

from ._reloaded import BROKER, REGISTRY, begun, stopped

PAIRS = 1000
Model = dict[str, dict[str, Any]]
"""Id -> its table, without what is the default."""


def drawn(chance: random.Random) -> Model:
    """A service of up to twelve components that stand on one another."""
    model: Model = {"driver/queue": {"plugin": "memory"}, "protocol/json": {"plugin": "json"}}
    for number in range(chance.randint(0, 3)):
        model[f"driver/shelf{number}"] = {"plugin": "shelf", "size": chance.randint(1, 3)} | _depends(model, chance)
    if chance.random() < 0.5:
        model["driver/orders"] = {"plugin": "publisher", **BROKER}
    for number in range(chance.randint(0, 3)):
        model[f"worker/guard{number}"] = {"use": "watchman"} | _depends(model, chance)
    for number in range(chance.randint(0, 2)):
        name = f"work{number}"
        model[f"dispatcher/{name}"] = {"plugin": "consumer", "queue": name, **BROKER}
        for use in chance.sample(["packer", "other"], chance.randint(1, 2)):
            worker = {"use": use, "dispatcher": name, "config": {"label": chance.choice("ab")}}
            model[f"worker/{use}{number}"] = worker | _depends(model, chance)
    for table in model.values():
        _vary(table, chance)
    if not any(id_.startswith("worker/") for id_ in model):
        model["worker/last"] = {"use": "watchman"}
    return model


def _depends(model: Model, chance: random.Random) -> dict[str, Any]:
    below = [id_ for id_ in model if id_.startswith("driver/")]
    chosen = sorted(chance.sample(below, chance.randint(0, min(2, len(below)))))
    return {"depends": chosen} if chosen else {}


def _vary(table: dict[str, Any], chance: random.Random) -> None:
    if chance.random() < 0.2 and "plugin" not in table:
        table["stop_timeout"] = chance.choice([0.5, 1.0])
    if chance.random() < 0.2 and "queue" in table:
        table["concurrency"] = chance.choice([3, 7])
    if chance.random() < 0.1 and table.get("plugin") == "json":
        table["max_depth"] = chance.choice([9, 11])


def edited(model: Model, chance: random.Random) -> Model:
    """The same service after somebody has edited some of it; sometimes quite another one."""
    other = drawn(chance)
    if chance.random() < 0.2:
        return other
    made = {id_: dict(table) for id_, table in model.items()}
    for id_ in chance.sample(sorted(made), min(len(made), chance.choice([0, 1, 1, 1, 2, 3]))):
        if id_ in other and chance.random() < 0.7:
            made[id_] = dict(other[id_])
        elif _is_free(made, id_):
            del made[id_]
    for id_ in chance.sample(sorted(other), chance.choice([0, 0, 1, 2])):
        if id_.startswith("worker/guard"):
            made.setdefault(id_, dict(other[id_]))
    for table in made.values():
        if "depends" in table:
            table["depends"] = [one for one in table["depends"] if one in made]
            if not table["depends"]:
                del table["depends"]
    return made


def _is_free(model: Model, id_: str) -> bool:
    """Whether nothing of a manifest would be wrong without a component."""
    return id_.startswith(("worker/guard", "driver/shelf", "driver/orders")) and len(_workers(model) - {id_}) > 0


def _workers(model: Model) -> set[str]:
    return {id_ for id_ in model if id_.startswith("worker/")}


def manifest(model: Model, chance: random.Random) -> dict[str, Any]:
    """A manifest as somebody may write it: in any order, with some defaults written out."""
    tables: dict[str, Any] = {"kernel": {"name": "shop", "grace_period": 120.0}}
    for id_ in chance.sample(sorted(model), len(model)):
        kind, _, name = id_.partition("/")
        table = dict(model[id_])
        if kind != "protocol" and chance.random() < 0.3:
            table.setdefault("start_timeout", 30.0)
            table.setdefault("restart", {"max_restarts": 12})
        tables.setdefault(f"{kind}s", {})[name] = table
    return tables


def expected(old: Model, new: Model) -> set[str]:
    """What has to start: what is new or another, and all that uses it."""
    roots = {id_ for id_ in new if old.get(id_) != new[id_]} | {id_ for id_ in old if id_ not in new}
    roots |= {id_ for id_ in new if id_.startswith("dispatcher/") and _fed(old, id_) != _fed(new, id_)}
    found: set[str] = set()
    while roots:
        id_ = roots.pop()
        if id_ not in found:
            found.add(id_)
            roots |= {user for model in (old, new) for user, table in model.items() if id_ in _used(table)}
    return {id_ for id_ in found if id_ in new and not id_.startswith("protocol/")}


def _used(table: Mapping[str, Any]) -> set[str]:
    named = {f"{kind}/{table[kind]}" for kind in ("driver", "protocol") if kind in table}
    return named | {*table.get("depends", ())}


def _fed(model: Model, dispatcher: str) -> set[str]:
    return {id_ for id_, table in model.items() if f"dispatcher/{table.get('dispatcher')}" == dispatcher}


def fresh(plan: Plan) -> Tree:
    """What a start of a plan would make."""
    hub = EventHub()
    supervisor = Supervisor(hub, lambda _child: None, lambda: None, lambda: None)
    tree = Tree(plan, hub, fake_context("kernel/kernel").log, supervisor, BODIES)
    tree.build()
    return tree


def shape(tree: Tree) -> list[Any]:
    """Everything that is to be the same as after a start."""
    children = [
        (
            child.id, child.policy, child.essential, child.start_timeout, child.stop_timeout, child.accepts,
            child.resident, [one.id for one in child.uses], [one.id for one in child.after],
            sorted(one.id for one in child.users), sorted(one.id for one in child.followers),
        )
        for child in tree.supervisor.children.values()
    ]  # fmt: skip
    pools = {
        name: (pool.spec.use, pool.spec.timeout, pool.concurrency, pool.closed) for name, pool in tree.pools.items()
    }
    return [children, pools, tree.protocols.keys(), tree.plan.budget]


async def reload(old: Model, new: Model, chance: random.Random) -> tuple[set[str], set[str], list[Any], list[Any]]:
    """Run one manifest, reload another; return what was stopped and started, and both trees."""
    async with open_kernel(manifest(old, chance), registry=REGISTRY) as service:
        since = len(service.events)
        plan = resolve(from_mapping(manifest(new, chance)), REGISTRY)
        told = await service.kernel.reload(plan)
        assert not told.failed, told
        assert service.kernel.is_ready
        tree = service.kernel._tree  # what is to be compared
        return stopped(service, since), begun(service, since), shape(tree), shape(fresh(plan))


@pytest.mark.slow
def test_what_restarts_is_what_has_changed_and_what_uses_it_and_the_tree_is_that_of_a_start() -> None:
    first = random.randrange(1_000_000_000)
    wrong: dict[int, object] = {}
    restarting = 0
    for seed in range(first, first + PAIRS):
        chance = random.Random(seed)
        old = drawn(chance)
        new = edited(old, chance)
        went, came, found, wanted = trio.run(reload, old, new, chance, clock=MockClock(autojump_threshold=0))
        starts = expected(old, new)
        gone = {id_ for id_ in old if id_ not in new and not id_.startswith("protocol/")}
        restarting += bool(starts or gone)
        if (came, went, found) != (starts, (starts & old.keys()) | gone, wanted):
            wrong[seed] = (came ^ starts, went ^ ((starts & old.keys()) | gone), found == wanted)

    assert not wrong
    assert restarting > PAIRS / 3
