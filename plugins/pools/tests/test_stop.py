"""SIGTERM while handlers are busy that cannot be cancelled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SERVICE = """
import os
import time

from kernel import handles


class Customer:
    def __init__(self, publisher):
        self.publisher = publisher

    async def run(self):
        await self.publisher.publish("busy", 60)


def busy(seconds: float):
    print("busy in", os.getpid(), flush=True)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    print("done", flush=True)
"""
MANIFEST = """
[kernel]
name = "test"
grace_period = 9.0
drain_timeout = 0.5

[drivers.queue]
plugin = "sqlite"
path = "queue.db"

[drivers.publisher]
driver = "queue"
protocol = "json"

[drivers.pool]
plugin = "POOL"

[dispatchers.incoming]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "q"
bindings = ["#"]

[workers.customer]
use = "service:Customer"
restart = { policy = "never" }

[workers.busy]
use = "service:busy"
dispatcher = "incoming"
runs_in = "pool"
"""


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["thread_pool", "process_pool"])
def test_a_stop_is_in_time_and_what_was_not_done_is_not_acknowledged(pool: str, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    (tmp_path / "kernel.toml").write_text(MANIFEST.replace("POOL", pool))
    command = [sys.executable, "-m", "kernel", "run"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as service:
        assert service.stdout is not None
        pid = next(int(line.split()[-1]) for line in service.stdout if line.startswith("busy in"))
        service.send_signal(signal.SIGTERM)
        began = time.monotonic()
        output = service.communicate(timeout=20)[0]
        took = time.monotonic() - began
    listed = subprocess.run(
        [sys.executable, "-m", "kernel", "queue", "list", "--file", "queue.db", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert took < 9.0, output
    assert "done" not in output.splitlines()
    assert '"ready": 1' in listed or '"claimed": 1' in listed, listed
    assert not (pool == "process_pool" and is_running(pid))


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
