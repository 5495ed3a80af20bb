"""Processes: that die, are killed, are used up; and none is left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from kernel_pools import NotSerializableError, ProcessDiedError, ProcessPoolConfig, ProcessPoolDriver

from kernel import DeadLetter
from kernel.abc import PlainWorker
from kernel.errors import DeliveryError, RemoteError
from kernel.testing import fake_context, open_kernel

from ._workers import die, disposition, leave, spin, where
from .conftest import OpenPool, manifest

PROCESSES = {"plugin": "process_pool", "processes": 1}

pytestmark = pytest.mark.slow


def function(use: Any) -> PlainWorker:
    return PlainWorker(id="worker/w", use=use, is_function=True, arguments={})


def driver(**config: Any) -> ProcessPoolDriver:
    settings = {"processes": 1, **config}
    return ProcessPoolDriver(config=ProcessPoolConfig(**settings), context=fake_context("driver/pool"))


def state(pid: int) -> str:
    """Return the state of a process as Linux has it; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


async def gone(pid: int, within: float = 30.0) -> None:
    with trio.fail_after(within):
        while state(pid):  # noqa: ASYNC110  it happens in the system
            await trio.sleep(0.01)


@pytest.mark.parametrize(("how", "told"), [("exit", "exit status 3"), ("segfault", "signal 11")])
async def test_a_process_that_dies_is_noticed_and_buried_and_another_goes_on(how: str, told: str) -> None:
    async with driver().open() as pool:
        before, _ = await pool.call(function(where), "", [None], {})  # type: ignore[misc]
        with trio.fail_after(5), pytest.raises(ProcessDiedError, match=told):
            await pool.call(function(die), "", [how], {})
        assert state(before) == ""
        after, _ = await pool.call(function(where), "", [None], {})  # type: ignore[misc]

    assert after not in {before, os.getpid()}
    assert state(after) == ""


async def test_a_process_that_dies_is_noticed_while_a_program_goes_on_that_it_has_started(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    async with driver().open() as pool:
        await pool.call(function(where), "", [None], {})
        try:
            with trio.fail_after(20), pytest.raises(ProcessDiedError, match="exit status 3"):
                await pool.call(function(leave), "", [str(file)], {})
        finally:
            os.kill(int(file.read_text()), signal.SIGKILL)


async def test_a_program_that_a_handler_starts_can_be_ended_as_any_other() -> None:
    async with driver().open() as pool:
        pid, _ = await pool.call(function(where), "", [None], {})  # type: ignore[misc]
        ignored: Any = await pool.call(function(disposition), "", [], {})
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        after, _ = await pool.call(function(where), "", [None], {})  # type: ignore[misc]

    assert {signal.SIGINT, signal.SIGTERM}.isdisjoint(ignored)
    assert after == pid, "it leaves them to its parent all the same"


async def test_a_delivery_whose_process_dies_is_tried_again_with_its_attempt_counted() -> None:
    """Without the fixture: the pipe of the last process that died is closed when its object is collected."""
    tables = manifest(PROCESSES, {"retry": {"attempts": 2, "backoff_initial": 0.0}})
    async with open_kernel(tables, expected=ProcessDiedError) as service:
        await service.publish("publisher", "die", "kill")
        settled = await service.wait_settled(2)

    assert isinstance(settled[-1].outcome, DeadLetter)
    assert "attempt 2 of 2" in settled[-1].outcome.reason


async def test_an_idle_process_that_is_killed_is_buried_and_the_next_call_has_another() -> None:
    async with driver().open() as pool:
        pid, _ = await pool.call(function(where), "", [None], {})  # type: ignore[misc]
        os.kill(pid, signal.SIGKILL)
        await gone(pid)

        assert await pool.call(function(where), "", [None], {})


async def test_a_cancelled_call_is_killed_with_its_process() -> None:
    async with driver().open() as pool:
        pid, _ = await pool.call(function(where), "", [None], {})  # type: ignore[misc]
        with trio.move_on_after(0.2) as scope:
            await pool.call(function(spin), "", [60.0], {})

        assert scope.cancelled_caught
        assert state(pid) == ""


async def test_a_process_is_replaced_after_its_number_of_calls() -> None:
    async with driver(max_tasks_per_child=2).open() as pool:
        pids = [(await pool.call(function(where), "", [None], {}))[0] for _ in range(4)]  # type: ignore[index]

    assert pids[0] == pids[1] != pids[2] == pids[3]


async def test_sys_exit_is_an_error_of_the_call_and_no_end_of_the_process() -> None:
    async with driver().open() as pool:
        before = await pool.call(function(where), "", [None], {})
        with pytest.raises(SystemExit):
            await pool.call(function(die), "", ["sys.exit"], {})

        assert await pool.call(function(where), "", [None], {}) == before


async def test_what_cannot_be_serialized_is_a_typed_error() -> None:
    async with driver().open() as pool:
        with pytest.raises(NotSerializableError, match="cannot be given"):
            await pool.call(function(where), "", [lambda: None], {})


@pytest.mark.parametrize(
    ("subject", "kind"), [("return.unwritable", NotSerializableError), ("raise.unwritable", DeliveryError)]
)
async def test_what_cannot_leave_its_process_is_a_typed_error(
    subject: str, kind: type[Exception], open_pool: OpenPool
) -> None:
    async with open_pool(PROCESSES, expected=kind) as client:
        with pytest.raises(RemoteError, match="cannot leave its process") as told:
            await client.ask(subject)

    assert told.value.kind == kind.__name__


async def test_the_environment_of_a_process_has_no_secrets(
    open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SHOP_PASSWORD", "SHOP_COLOUR"):
        monkeypatch.setenv(name, "red")
    async with open_pool({**PROCESSES, "environment": ["SHOP_COLOUR"]}) as client:
        seen = [await client.ask("environment", name) for name in ("SHOP_PASSWORD", "SHOP_COLOUR", "PATH")]

    assert seen == [None, "red", os.environ["PATH"]]


PARENT = """
import sys, trio
from kernel_pools import ProcessPoolConfig, ProcessPoolDriver
from kernel.abc import PlainWorker
from kernel.testing import fake_context, open_kernel
from _workers import spin, where

async def main():
    driver = ProcessPoolDriver(config=ProcessPoolConfig(processes=1), context=fake_context("driver/pool"))
    async with driver.open() as pool:
        w = lambda use: PlainWorker(id="worker/w", use=use, is_function=True, arguments={})
        pid, _ = await pool.call(w(where), "", [None], {})
        print(pid, flush=True)
        await pool.call(w(spin), "", [60.0], {})

if __name__ == "__main__":
    trio.run(main)
"""


def test_a_process_dies_with_its_parent_also_when_it_is_busy(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, env=environ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.2)  # so that it is busy
        parent.kill()
    until = time.monotonic() + 5
    while state(pid) not in {"", "Z"} and time.monotonic() < until:  # whoever inherits it buries it
        time.sleep(0.01)

    assert state(pid) in {"", "Z"}
