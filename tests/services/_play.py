"""Plays a drawn service in virtual time, from its start to its end, and says what did not hold."""

from __future__ import annotations

import random
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from types import ModuleType

import trio
from trio.testing import MockClock

from kernel import ComponentFailed, Event, Plan, StopRequested, resolve, serve
from kernel._core.events import EventHub
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry
from kernel.testing import fake_context

from ._components import plugins
from ._draw import MODULE, draw
from ._facts import broken
from ._world import Parcel, World

PATIENCE = 3000.0
"""Seconds, of virtual time, in which any service ends."""
SETTLING = 6.0
"""Seconds in which a source may be told an outcome."""


def play(seed: int) -> World:
    """Play what a seed means."""
    world = World(draw(seed))
    with seeded(seed), wishes():
        trio.run(_live, world, clock=MockClock(autojump_threshold=0))
    return world


def faults(seed: int) -> list[str]:
    """Play what a seed means, and return what did not hold."""
    try:
        return broken(play(seed))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return [f"escaped: {error!r} {error}"[:1500]]


async def _live(world: World) -> None:
    world.began = trio.current_time()
    world.fill()
    plan = resolve(from_mapping(world.draw.manifest), Registry.of(plugins(world)))
    hub = EventHub()
    hub.subscribe(partial(hear, world))
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            world.kernel = await nursery.start(partial(_serve, world, plan, hub))
            for parcel in world.parcels:
                if parcel.task.revoked < PATIENCE:
                    nursery.start_soon(revoke, world, parcel)
            nursery.start_soon(_stop, world)
            await world.kernel.wait_stop_requested()


async def _serve(world: World, plan: Plan, hub: EventHub, task_status: trio.TaskStatus[object]) -> None:
    log = fake_context("kernel/kernel").log
    world.result = await serve(plan, log=log, hub=hub, task_status=task_status)


def hear(world: World, event: Event) -> None:
    world.events.append(event)
    world.heard_at[id(event)] = trio.current_time()
    if isinstance(event, ComponentFailed) and event.component.startswith("dispatcher/"):
        world.cuts.setdefault(event.component.partition("/")[2], []).append(trio.current_time())
    if isinstance(event, StopRequested):
        world.stop_at = trio.current_time()


async def _stop(world: World) -> None:
    assert world.kernel is not None
    with trio.move_on_at(world.began + world.draw.stop_at):
        await world.kernel.wait_stop_requested()
    world.kernel.request_stop("drawn")
    if world.draw.hasten_after < PATIENCE:
        await trio.sleep(world.draw.hasten_after)
        world.hastened_at = trio.current_time()
        world.kernel.hasten()


async def revoke(world: World, parcel: Parcel) -> None:
    await trio.sleep_until(world.began + parcel.task.at + parcel.task.revoked)
    intakes = [intake for source, intake in world.intakes if source.name == parcel.task.dispatcher]
    if not intakes or parcel.taken_at > trio.current_time():
        return
    now, task = trio.current_time(), parcel.task
    same = [one for one in world.parcels if one.task.name == task.name and one.task.dispatcher == task.dispatcher]
    in_flight = [one for one in same if one.taken_at <= now and not one.told]
    ending = [one for one in same if one.told and now - one.told[0][0] < SETTLING]
    for one in in_flight:
        one.revoked_at = min(one.revoked_at, now)
    found = intakes[-1].revoke(task.name)
    world.expect(found or not in_flight, f"{task.number} is in flight, and nobody knows {task.name}")
    world.expect(not found or bool(in_flight or ending), f"{task.name} is known and not in flight")


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Let chance be the seed's: that of backoffs, and that of trio's scheduler."""
    from trio._core import _run  # noqa: PLC0415  nothing public makes it the same again

    kept, kept_trio, was = random.getstate(), _run._r.getstate(), _run._ALLOW_DETERMINISTIC_SCHEDULING
    random.seed(seed)
    _run._r.seed(seed)
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True
    try:
        yield
    finally:
        random.setstate(kept)
        _run._r.setstate(kept_trio)
        _run._ALLOW_DETERMINISTIC_SCHEDULING = was


@contextmanager
def wishes() -> Generator[None]:
    """Let a manifest find its filters."""
    module = ModuleType(MODULE)

    def raises(payload: object) -> bool:
        raise ValueError(payload)

    module.wants_all = lambda payload: True  # type: ignore[attr-defined]
    module.wants_even = lambda payload: isinstance(payload, dict) and _is_even(payload["number"])  # type: ignore[attr-defined]
    module.raises = raises  # type: ignore[attr-defined]
    sys.modules[MODULE] = module
    try:
        yield
    finally:
        del sys.modules[MODULE]


def _is_even(number: object) -> bool:
    return not isinstance(number, int) or number % 2 == 0
