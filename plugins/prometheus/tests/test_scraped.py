"""A real Prometheus scrapes a loaded service, and its counts add up."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kernel.testing import free_port

PATIENCE = 40.0
MESSAGES = 500
WORKERS = f"""
import os, trio
from kernel import handles

class Packer:
    @handles("#")
    async def pack(self, payload: object):
        await trio.sleep(0.001)

async def feed(events):
    for number in range({MESSAGES}):
        await events.publish(f"order.{{number}}", number)
    await trio.sleep_forever()
"""
MANIFEST = """
[kernel]
name = "shop"
[drivers.queue]
plugin = "memory"
[drivers.events]
plugin = "publisher"
driver = "queue"
protocol = "json"
[dispatchers.work]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "q"
bindings = ["#"]
[dispatchers.metrics]
plugin = "prometheus"
bind = "127.0.0.1:PORT"
handlers = true
[workers.packer]
use = "workers:Packer"
dispatcher = "work"
[workers.feed]
use = "workers:feed"
depends = ["dispatcher/work"]
"""
SCRAPES = """
scrape_configs:
  - job_name: shop
    scrape_interval: 1s
    static_configs:
      - targets: ["127.0.0.1:PORT"]
"""


@contextmanager
def running(command: list[str], at: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process while inside."""
    with open(at / f"{Path(command[0]).name}.log", "wb") as log:
        process = subprocess.Popen(command, cwd=at, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(what: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.1)
    return False


def ask(port: int, query: str) -> list[float]:
    """Return the values of an instant query; none if nobody answers yet."""
    url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(query)}"
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            found: dict[str, Any] = json.load(answer)
    except OSError:
        return []
    return [float(one["value"][1]) for one in found["data"]["result"]]


@pytest.mark.slow
def test_a_real_prometheus_counts_what_was_sent(tmp_path: Path) -> None:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("needs prometheus, the Debian package")
    service, server = free_port(), free_port()
    (tmp_path / "workers.py").write_text(WORKERS)
    (tmp_path / "kernel.toml").write_text(MANIFEST.replace("PORT", str(service)))
    (tmp_path / "prometheus.yml").write_text(SCRAPES.replace("PORT", str(service)))
    options = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{server}"]
    with (
        running([sys.executable, "-m", "kernel", "run"], tmp_path) as shop,
        running([prometheus, *options], tmp_path),
    ):
        counted = wait_for(lambda: ask(server, 'sum(kernel_deliveries_total{outcome="ack"})') == [MESSAGES])
        up = ask(server, "min_over_time(up[1m])")
        took = ask(server, "sum(kernel_handler_seconds_count)")
        state = shop.poll()

    logs = "".join(path.read_text(errors="replace") for path in tmp_path.glob("*.log"))
    assert (counted, took, state) == (True, [MESSAGES], None), logs[-3000:]
    assert up[-1:] in ([1.0], [0.0])  # the first scrape may have come before the service
