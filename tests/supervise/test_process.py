"""What signals mean to a service that runs as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from kernel import DrainTimedOut, handles
from kernel._manifest.registry import Registry, discover
from kernel._supervise.leash import AT_ONCE
from kernel._supervise.process import _Signals
from kernel.testing import OpenKernel, fake_context, open_kernel

BROKER = {"driver": "queue", "protocol": "json"}
TABLES = {
    "kernel": {"name": "shop", "grace_period": 100.0, "drain_timeout": 60.0},
    "drivers": {"queue": {"plugin": "memory"}, "orders": {"plugin": "publisher", **BROKER}},
    "dispatchers": {"work": {"plugin": "consumer", "queue": "work", "bindings": ["#"], **BROKER}},
    "workers": {"slow": {"use": "slow", "dispatcher": "work"}},
}


class Slow:
    @handles("#")
    async def on(self, payload: Any) -> None:
        await trio.sleep(30)


async def stopped_by(*interrupts: float) -> OpenKernel:
    """Stop a service in which a message is handled, by SIGINTs at these times."""
    registry = Registry((*discover().plugins, *Registry.of({"workers": {"slow": Slow}}).plugins))
    async with open_kernel(TABLES, registry=registry) as kernel:
        await kernel.publish("orders", "a.b", 1)
        await trio.sleep(1)
        signals = _Signals(fake_context().log)
        signals.receive(signal.SIGINT, interrupts[0])  # while the service starts
        signals.pass_on_to(kernel.kernel)
        for at in interrupts[1:]:
            signals.receive(signal.SIGINT, at)
        await kernel.stop()
    return kernel


@pytest.mark.parametrize(
    ("interrupts", "is_cut"),
    [
        ((10.0,), False),
        ((10.0, 10.0), False),
        ((10.0, 10.001, 10.0 + AT_ONCE * 0.9), False),
        ((10.0, 10.0 + AT_ONCE * 1.1), True),
        ((10.0, 10.001, 10.0 + AT_ONCE * 1.1), True),
        ((10.0, 100.0), True),
    ],
)
async def test_interrupts_at_once_are_one_and_a_later_one_skips_the_drain(
    autojump_clock: Any, interrupts: tuple[float, ...], is_cut: bool
) -> None:
    kernel = await stopped_by(*interrupts)

    assert any(isinstance(event, DrainTimedOut) for event in kernel.events) is is_cut


AS_PROCESS_1 = "import os; os.getpid = lambda: 1; from kernel.__main__ import main; main()"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "status"),
    [
        (AS_PROCESS_1, 143),
        (AS_PROCESS_1.partition("; ")[0] + "; from kernel.__main__ import main; main()", -signal.SIGTERM),
    ],
    ids=["process-1", "another"],
)
def test_sigterm_while_a_worker_is_imported_ends_the_process(tmp_path: Path, code: str, status: int) -> None:
    """Process 1 has no signals that end it by themselves: one without a handler is lost."""
    (tmp_path / "slow_import.py").write_text("import os, time\nos.write(1, b'here')\ntime.sleep(60)\n")
    (tmp_path / "kernel.toml").write_text('[workers.w]\nuse = "slow_import:run"\n')
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.argv = ['kernel', 'run']; {code}"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        env={**os.environ},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"here"
        process.terminate()

        assert process.wait(timeout=30) == status


TOLD = """
import os, signal
from kernel.abc import Context

class Busy:
    def __init__(self, context: Context) -> None:
        self.context = context

    async def run(self) -> None:
        before = self.context.snapshot()
        os.kill(os.getpid(), signal.SIGTERM)
        after = self.context.snapshot()
        print(before.is_stopping, after.is_stopping, after.is_ready, after.reason, flush=True)
"""


@pytest.mark.slow
def test_who_looks_sees_a_stop_before_the_event_loop_does(tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(TOLD)
    (tmp_path / "kernel.toml").write_text('[workers.w]\nuse = "busy:Busy"\n')
    command = [sys.executable, "-m", "kernel", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=True, text=True)

    assert "False True False SIGTERM" in done.stdout.splitlines()
