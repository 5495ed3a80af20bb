"""Plays three drawn services inside one, in one process, and says of each what did not hold."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import attrs
import trio
from trio.testing import MockClock

from kernel import Event, Plan, Result, resolve, serve
from kernel._core.events import EventHub
from kernel._manifest.manifest import Manifest, from_mapping
from kernel._manifest.registry import Registry
from kernel._supervise.kernel import Kernel
from kernel.abc import Driver
from kernel.testing import fake_context

from ._components import driver, plugins
from ._draw import draw
from ._facts import broken
from ._play import PATIENCE, hear, revoke, seeded, wishes
from ._world import World

NAMES = ("a", "b", "c")
LENT = ("a", "b")
"""Those that use the driver of the outer service; the third has its own."""


def play_inside(seed: int) -> list[World]:
    """Play what three seeds mean, stopped when the first of them is."""
    chance = random.Random(seed)
    draws = [draw(chance.randrange(1_000_000_000)) for _ in NAMES]
    first = draws[0]
    shared = {"drain_timeout": first.drain_timeout, "stop_at": first.stop_at, "hasten_after": first.hasten_after}
    worlds = [World(attrs.evolve(one, **shared)) for one in draws]
    with seeded(seed), wishes():
        trio.run(_live, worlds, clock=MockClock(autojump_threshold=0))
    return worlds


def faults_inside(seed: int) -> list[str]:
    """Play what a seed means, and return what did not hold."""
    try:
        worlds = play_inside(seed)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return [f"escaped: {error!r} {error}"[:1500]]
    return [f"{name}: {text}" for name, world in zip(NAMES, worlds, strict=True) for text in broken(world)]


async def _live(worlds: Sequence[World]) -> None:
    for world in worlds:
        world.began = trio.current_time()
        world.fill()
    plan = planned(worlds)
    hub = EventHub()
    hub.subscribe(partial(_hear, worlds))
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            kernel: Kernel = await nursery.start(_serve, worlds, plan, hub)
            for name, world in zip(NAMES, worlds, strict=True):
                world.kernel = cast("Any", SimpleNamespace(plan=_seen_by(name, plan)))
                for parcel in world.parcels:
                    if parcel.task.revoked < PATIENCE:
                        nursery.start_soon(revoke, world, parcel)
            nursery.start_soon(_stop, worlds, kernel)
            await kernel.wait_stop_requested()
    for world in worlds:  # what cannot be cancelled in one keeps all
        world.held_until = max(one.held_until for one in worlds)


def planned(worlds: Sequence[World]) -> Plan:
    """Return the plan of a service with one inside for each world."""
    tables = {
        "kernel": {"name": "outer", "grace_period": 3600.0, "drain_timeout": worlds[0].draw.drain_timeout},
        "drivers": {"base": {"plugin": "base", "stop_timeout": 1.0}},
    }
    said = {name: {"manifest": f"{name}.toml", "drivers": {"base": "base"} if name in LENT else {}} for name in NAMES}
    outer = attrs.evolve(
        from_mapping(tables),
        tables={**tables, "services": said},
        services={name: _inner(name, world) for name, world in zip(NAMES, worlds, strict=True)},
    )
    found: dict[str, dict[str, object]] = {"drivers": {"base": _base(worlds)}}
    for name, world in zip(NAMES, worlds, strict=True):
        for kind, own in plugins(world).items():
            found.setdefault(kind, {}).update({f"{name}_{key}": one for key, one in own.items()})
    return resolve(outer, Registry.of(cast("Mapping[str, Mapping[str, Any]]", found)))


def _base(worlds: Sequence[World]) -> type[Driver[object]]:
    """Return the driver of the outer service, which closes after all that is inside and uses it."""
    everybody = World(attrs.evolve(worlds[0].draw))
    everybody.broken = worlds[0].broken
    everybody.open = cast("Any", _Open([world for world, name in zip(worlds, NAMES, strict=True) if name in LENT]))
    return driver(everybody)


class _Open:
    """What is open in several worlds, but for what was left behind."""

    def __init__(self, worlds: Sequence[World]) -> None:
        self.worlds = worlds

    def items(self) -> list[tuple[str, int]]:
        return [(key, n) for one in self.worlds for key, n in one.open.items() if key not in one.left_behind]


def _inner(name: str, world: World) -> Manifest:
    tables: dict[str, Any] = _renamed(name, world.draw.manifest)
    if name in LENT:
        del tables["drivers"]
    return from_mapping(tables, name=f"{name}.toml")


def _renamed(name: str, tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return tables whose plugins and classes are those of one world."""
    own = {
        kind: {key: dict(table) for key, table in named.items()} for kind, named in tables.items() if kind != "kernel"
    }
    for named in own.values():
        for table in named.values():
            for key in ("plugin", "use", "protocol"):
                if key in table:
                    table[key] = f"{name}_{table[key]}"
    return {"kernel": dict(tables["kernel"]), **own}


def _seen_by(name: str, plan: Plan) -> Plan:
    """Return a plan as the service inside of it would see it."""
    mine = {_own(name, id_): spec for id_, spec in plan.components.items() if _own(name, id_)}
    components = {
        id_: attrs.evolve(
            spec, id=id_, uses=tuple(filter(None, (_own(name, one) for one in spec.uses))),
            after=tuple(filter(None, (_own(name, one) for one in spec.after))),
        )
        for id_, spec in mine.items()
    }  # fmt: skip
    return attrs.evolve(plan, components=components)


def _own(name: str, id_: str) -> str:
    """Return what the id of a component is inside; empty if it is not there."""
    kind, slash, rest = id_.partition("/")
    if not slash or (id_ == "driver/base" and name in LENT):
        return id_
    return f"{kind}/{rest.removeprefix(f'{name}/')}" if rest.startswith(f"{name}/") else ""


def _hear(worlds: Sequence[World], event: Event) -> None:
    for name, world in zip(NAMES, worlds, strict=True):
        if own := _own(name, event.component):
            hear(world, attrs.evolve(event, component=own))


async def _serve(worlds: Sequence[World], plan: Plan, hub: EventHub, task_status: trio.TaskStatus[Kernel]) -> None:
    result = await serve(plan, log=fake_context("kernel/kernel").log, hub=hub, task_status=task_status)
    for name, world in zip(NAMES, worlds, strict=True):
        world.result = Result(result.status, tuple(one for one in result.errors if _is_about(name, one)))


def _is_about(name: str, error: BaseException) -> bool:
    component = str(getattr(error, "component", ""))
    return not component or bool(_own(name, component))


async def _stop(worlds: Sequence[World], kernel: Kernel) -> None:
    world = worlds[0]
    with trio.move_on_at(world.began + world.draw.stop_at):
        await kernel.wait_stop_requested()
    kernel.request_stop("drawn")
    if world.draw.hasten_after < PATIENCE:
        await trio.sleep(world.draw.hasten_after)
        for one in worlds:
            one.hastened_at = trio.current_time()
        kernel.hasten()
    assert math.isfinite(world.stop_at)
