"""A loop that never rests, and Python's threads beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kernel import EventHub, run
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry
from kernel._plan.plan import resolve
from kernel._supervise.switching import INTERVAL
from kernel.testing import fake_context

MOST = 20_000
BUSY = f"""
import os, trio

def many():
    for _ in range(50):
        os.stat("/")  # lets go of the interpreter, and asks for it again

async def busy():
    turns, done = 0, []

    async def aside():
        await trio.to_thread.run_sync(many)
        done.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(aside)
        while not done and turns < {MOST}:
            sum(range(20_000))
            turns += 1
            await trio.lowlevel.checkpoint()
    print("turns", turns)
"""


@pytest.mark.slow
def test_a_thread_is_not_kept_waiting_by_a_busy_loop(tmp_path: Path) -> None:
    """With the interval of Python, it is still at work after 20,000 turns; now it is done after about 20."""
    (tmp_path / "service.py").write_text(BUSY)
    (tmp_path / "kernel.toml").write_text('[workers.busy]\nuse = "service:busy"\nmain = true\n')

    command = [sys.executable, "-m", "kernel", "run", "kernel.toml"]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, check=True, text=True)

    turns = next(int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("turns "))
    assert turns < MOST / 10


def test_the_interval_is_put_back() -> None:
    before, seen = sys.getswitchinterval(), []

    async def look() -> None:
        seen.append(sys.getswitchinterval())

    registry = Registry.of({"workers": {"look": look}})
    plan = resolve(from_mapping({"workers": {"look": {"use": "look", "main": True}}}), registry)
    result = run(plan, log=fake_context().log, hub=EventHub())

    assert result.status == 0
    assert seen == [pytest.approx(INTERVAL, abs=1e-6)]
    assert sys.getswitchinterval() == before
