"""What a process does before it can be called is no time of a handler's, and no attempt."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from kernel import Ack, Outcome, Return
from kernel.testing import open_kernel

from ._gates import gate
from ._workers import where
from .conftest import manifest
from .test_processes import driver, function, state

PROCESSES: dict[str, Any] = {"plugin": "process_pool", "processes": 1}

pytestmark = pytest.mark.slow
each_place = pytest.mark.parametrize("at", ["import", "object"])


def calls(service: Any) -> list[tuple[type[Outcome], int]]:
    return [(type(event.outcome), event.attempt) for event in service.settled]


async def wait_reason(service: Any, *parts: str) -> None:
    """Wait until the pool says what ails it."""
    with trio.fail_after(40):
        while not all(part in reason(service) for part in parts):  # noqa: ASYNC110  it happens in another process
            await trio.sleep(0.01)


def reason(service: Any) -> str:
    return next(one.reason for one in service.kernel.snapshot().components if one.id == "driver/pool")


@each_place
async def test_an_import_that_takes_longer_than_the_timeout_is_no_failure_of_any_call(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor of those that wait for a place meanwhile."""
    slow = gate(tmp_path, monkeypatch, at)
    tables = manifest(PROCESSES, {"use": slow.use, "timeout": 0.5, "retry": {"attempts": 1}}, concurrency=3)
    async with open_kernel(tables) as service:
        for _ in range(3):
            await service.publish("publisher", "draw", 1)
        pid = await slow.wait_began()
        await trio.sleep(0.6)
        slow.open()
        await service.wait_settled(3)

        assert calls(service) == [(Ack, 1)] * 3
        assert slow.began() == [pid]


@each_place
async def test_a_process_that_gets_ready_is_kept_for_the_next_when_its_call_is_cancelled(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = gate(tmp_path, monkeypatch, at)
    async with driver().open() as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.call, slow.worker, "__call__", [1], {})
            pid = await slow.wait_began()
            nursery.cancel_scope.cancel()
        slow.open()

        assert await pool.call(slow.worker, "__call__", [1], {}) == pid
        assert slow.began() == [pid]


@each_place
async def test_a_process_that_is_killed_before_it_is_ready_costs_no_attempt_and_another_starts(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = gate(tmp_path, monkeypatch, at)
    doing = f"importing {slow.module}" if at == "import" else "making the object of worker/calls"
    async with open_kernel(manifest(PROCESSES, {"use": slow.use, "retry": {"attempts": 1}})) as service:
        await service.publish("publisher", "draw", 1)
        os.kill(await slow.wait_began(), signal.SIGKILL)
        await wait_reason(service, f"a process died {doing}: killed by signal 9")
        slow.open()
        await service.wait_settled(2)
        await wait_reason(service, "")

        assert calls(service) == [(Return, 1), (Ack, 1)]
        assert service.kernel.states["driver/pool"].value == "ready"


@each_place
async def test_a_process_that_does_not_get_ready_in_time_is_killed_and_said_what_it_was_at(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = gate(tmp_path, monkeypatch, at)
    doing = f"importing {slow.module}" if at == "import" else "making the object of worker/calls"
    async with open_kernel(manifest(PROCESSES, {"use": slow.use, "timeout": 0.1})) as service:
        pool = service.resource("driver/pool")
        pid, _ = await pool.call(function(where), "", [None], {})  # however long a process takes to start here
        pool._children._config = attrs.evolve(pool._children._config, child_start_timeout=0.3)
        await service.publish("publisher", "draw", 1)
        await slow.wait_began()
        await wait_reason(service, f"a process was still {doing} when child_start_timeout = 0.3 s was over")

        assert state(pid) == ""
        assert calls(service) in ([], [(Return, 1)])


async def test_a_constructor_that_raises_costs_no_attempt_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slow = gate(tmp_path, monkeypatch, "object")
    slow.open()
    (tmp_path / "raises").touch()
    async with open_kernel(manifest(PROCESSES, {"use": slow.use, "retry": {"attempts": 1}})) as service:
        await service.publish("publisher", "draw", 1)
        await wait_reason(service, "a process fails at making the object of worker/calls: ValueError: no paper")
        (tmp_path / "raises").unlink()
        await service.wait_settled(2)

        assert calls(service)[-1] == (Ack, 1)
        assert len(set(slow.began())) == 1, "a process is kept that can be asked again"


@each_place
async def test_a_stop_does_not_wait_for_a_process_that_gets_ready(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = gate(tmp_path, monkeypatch, at)
    tables = manifest(PROCESSES, {"use": slow.use})
    tables["kernel"]["drain_timeout"] = 0.2
    async with open_kernel(tables) as service:
        await service.publish("publisher", "draw", 1)
        pid = await slow.wait_began()
        with trio.fail_after(5):
            await service.stop()

        assert calls(service) == [(Return, 1)]
    assert state(pid) == ""


async def test_each_process_that_is_used_up_is_followed_by_one_that_gets_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = gate(tmp_path, monkeypatch)
    slow.open()
    pool = {**PROCESSES, "max_tasks_per_child": 2}
    async with open_kernel(manifest(pool, {"use": slow.use, "timeout": 5.0, "retry": {"attempts": 1}})) as service:
        for _ in range(5):
            await service.publish("publisher", "draw", 1)
        await service.wait_settled(5)

        assert calls(service) == [(Ack, 1)] * 5
        assert len(set(slow.began())) == len(slow.began()) == 3
