"""Ten thousand restarts leave nothing behind."""

from __future__ import annotations

import gc
import os
import sys

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from kernel._core.events import EventHub
from kernel._core.policies import RestartHistory, RestartPolicy
from kernel._supervise.child import Child
from kernel._supervise.life import Life
from kernel._supervise.supervisor import Supervisor

FDS = "/proc/self/fd"
RESTARTS = 10_000
WARM_UP = 500
POLICY = RestartPolicy(max_restarts=100, window=0.5, backoff_initial=1.0, backoff_max=1.0)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.exists(FDS), reason="needs /proc to count descriptors"),
]


@attrs.frozen
class Footprint:
    tasks: int
    descriptors: int
    blocks: int
    """Of memory, as the interpreter counts them."""


async def test_ten_thousand_restarts_leave_memory_tasks_and_descriptors_flat(autojump_clock: MockClock) -> None:
    """A driver that breaks each second takes along a user, which has a task and a pipe of its own."""
    supervisor = Supervisor(EventHub(), lambda child: None, lambda: None, lambda: None)
    lives = [0]
    driver = add(supervisor, "driver", breaks_each_second)
    user = add(supervisor, "user", lambda life: works(life, lives))
    user.depends_on(uses=[driver])

    async with trio.open_nursery() as nursery:
        supervisor.start(nursery)
        before = await footprint_after(WARM_UP, lives)
        after = await footprint_after(WARM_UP + RESTARTS, lives)
        await supervisor.stop(drain_until=trio.current_time())

    assert lives[0] > RESTARTS
    assert (after.tasks, after.descriptors) == (before.tasks, before.descriptors)
    assert after.blocks - before.blocks < RESTARTS / 10  # nothing is kept of a restart, but caches may grow
    assert supervisor.errors == []


async def footprint_after(restarts: int, lives: list[int]) -> Footprint:
    """Measure half-way through a life in which everything is up."""
    while lives[0] <= restarts:  # noqa: ASYNC110  virtual time, and no event for a number
        await trio.sleep(1)
    await trio.testing.wait_all_tasks_blocked()
    gc.collect()
    tasks = trio.lowlevel.current_statistics().tasks_living
    return Footprint(tasks, len(os.listdir(FDS)), sys.getallocatedblocks())


def add(supervisor: Supervisor, name: str, body: object) -> Child:
    return supervisor.add(Child(id=name, body=body, policy=POLICY, history=RestartHistory(POLICY, lambda: 0.0)))


async def breaks_each_second(life: Life) -> None:
    life.started()
    await trio.sleep(1)
    raise ExceptionGroup("both", [ValueError("broken"), OSError("gone")])


async def works(life: Life, lives: list[int]) -> None:
    ends = os.pipe()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            lives[0] += 1
            life.started(bytearray(10_000))
            with life.inner:
                await trio.sleep_forever()
            nursery.cancel_scope.cancel()
    finally:
        for end in ends:
            os.close(end)
