"""A process that has ended leaves nothing open, however it ended: without Python's help, which comes when it likes."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from kernel_pools import ProcessDiedError

from kernel import Return

from ._gates import gate
from ._workers import die, spin, where
from .test_processes import driver, function, gone, state

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def open_here() -> int:
    return len(os.listdir("/proc/self/fd"))


async def wait_open(number: int) -> None:
    """Wait until so many descriptors are open; processes that end by themselves are looked for each second."""
    with trio.move_on_after(5):
        while open_here() > number:  # noqa: ASYNC110  it happens in the system
            await trio.sleep(0.01)
    assert open_here() <= number


async def used_up(pool: Any) -> None:
    await pool.call(function(where), "", [None], {})


async def killed_in_a_call(pool: Any) -> None:
    with pytest.raises(ProcessDiedError):
        await pool.call(function(die), "", ["kill"], {})


async def left_in_a_call(pool: Any) -> None:
    with pytest.raises(ProcessDiedError):
        await pool.call(function(die), "", ["exit"], {})


async def cancelled(pool: Any) -> None:
    await pool.call(function(where), "", [None], {})
    with trio.move_on_after(0.05):
        await pool.call(function(spin), "", [60.0], {})


async def killed_while_it_was_idle(pool: Any) -> None:
    pid, _ = await pool.call(function(where), "", [None], {})
    os.kill(pid, signal.SIGKILL)
    await gone(pid)


async def killed_while_it_was_idle_and_called_at_once(pool: Any) -> None:
    pid, _ = await pool.call(function(where), "", [None], {})
    os.kill(pid, signal.SIGKILL)
    try:
        await pool.call(function(where), "", [None], {})
    except ProcessDiedError:
        return
    await killed_in_a_call(pool)


ENDS: list[tuple[Callable[[Any], Awaitable[None]], dict[str, Any]]] = [
    (used_up, {"max_tasks_per_child": 1}),
    (used_up, {"idle_timeout": 0.01}),
    (killed_in_a_call, {}),
    (left_in_a_call, {}),
    (cancelled, {}),
    (killed_while_it_was_idle, {}),
    (killed_while_it_was_idle_and_called_at_once, {}),
]


@pytest.mark.parametrize(("end", "config"), ENDS)
async def test_a_process_that_has_ended_leaves_nothing_open(
    end: Callable[[Any], Awaitable[None]], config: dict[str, Any]
) -> None:
    await trio.to_thread.run_sync(bool)
    before = open_here()
    async with driver(**config).open() as pool:
        for _ in range(3):
            await end(pool)
            await wait_open(before)


@pytest.mark.parametrize("at", ["import", "object"])
@pytest.mark.parametrize("how", ["killed", "closed"])
async def test_a_process_that_ends_before_it_is_ready_leaves_nothing_open(
    how: str, at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = gate(tmp_path, monkeypatch, at)
    await trio.to_thread.run_sync(bool)
    before = open_here()
    async with driver().open() as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.call, slow.worker, "__call__", [1], {})
        pid = await slow.wait_began()
        if how == "killed":
            os.kill(pid, signal.SIGKILL)
        nursery.cancel_scope.cancel()

    assert open_here() <= before
    assert state(pid) == ""


async def test_a_process_that_does_not_start_in_time_leaves_nothing_open() -> None:
    await trio.to_thread.run_sync(bool)
    before = open_here()
    async with driver(child_start_timeout=0.01).open() as pool:
        for _ in range(3):
            assert await pool.call(function(where), "", [None], {}) == Return()
            await wait_open(before)
