"""A whole service as a process: probes and notes for systemd, while it starts, is blocked, and stops."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE = 60.0
STALL = 1.0
"""Seconds of `stall` in the manifest."""
WORKERS = """
import os, time, trio
from kernel import handles

class Blocking:
    async def run(self):
        while not os.path.exists("block"):
            await trio.sleep(0.01)
        while os.path.exists("block"):
            time.sleep(0.01)
        await trio.sleep_forever()

class Packer:
    @handles("#")
    async def pack(self, payload: object):
        open("begun", "w").close()
        while not os.path.exists("finish"):
            await trio.sleep(0.01)
        print("finished", flush=True)

async def feed(events):
    await events.publish("order.created", {})
    await trio.sleep_forever()
"""
MANIFEST = """
[kernel]
name = "test"
drain_timeout = 20.0
grace_period = 40.0
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
[dispatchers.health]
plugin = "health"
bind = "unix:PATH/health.sock"
stall = 1.0
[workers.packer]
use = "workers:Packer"
dispatcher = "work"
[workers.blocking]
use = "workers:Blocking"
[workers.feed]
use = "workers:feed"
depends = ["dispatcher/work"]
"""


def probe(path: Path, what: str) -> tuple[int, str]:
    """Return the status and text of a probe; 0 if nobody answers."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect(str(path / "health.sock"))
            sock.sendall(f"GET {what} HTTP/1.1\r\n\r\n".encode())
            answer = b""
            while data := sock.recv(65536):
                answer += data
        except OSError:
            return 0, ""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head[9:12]), body.decode()


def wait_for(what: Callable[[], object], pause: float = 0.005) -> None:
    """Wait until something is so."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < PATIENCE, what
        time.sleep(pause)


@contextmanager
def noted(path: Path) -> Iterator[list[str]]:
    """Be systemd: return the lines that come, which grow."""
    lines: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))

        def take() -> None:
            while data := sock.recv(65536):
                lines.extend(data.decode().splitlines())

        reader = threading.Thread(target=take, daemon=True)
        reader.start()
        try:
            yield lines
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.sendto(b"", str(path))
            reader.join(PATIENCE)


@pytest.mark.slow
def test_probes_and_notes_say_the_truth_of_a_process(tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text(WORKERS)
    (tmp_path / "kernel.toml").write_text(MANIFEST.replace("PATH", str(tmp_path)))
    environ = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
    command = [sys.executable, "-m", "kernel", "run"]
    with noted(tmp_path / "notify") as notes:
        process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            wait_for(lambda: probe(tmp_path, "/ready")[0] == 200)
            wait_for((tmp_path / "begun").exists)
            wait_for(lambda: {"READY=1", "WATCHDOG=1"} <= set(notes))

            began = time.monotonic()
            (tmp_path / "block").touch()
            wait_for(lambda: "blocked" in probe(tmp_path, "/ready")[1])
            blocked, live = probe(tmp_path, "/ready"), probe(tmp_path, "/live")
            may_have_stalled = time.monotonic() - began > STALL
            wait_for(lambda: probe(tmp_path, "/live")[0] == 503)
            before = len(notes)
            time.sleep(0.3)  # in which three notes would come
            silent = notes[before:]
            (tmp_path / "block").unlink()
            wait_for(lambda: probe(tmp_path, "/ready")[0] == 200)

            process.send_signal(signal.SIGTERM)
            wait_for(lambda: probe(tmp_path, "/ready")[0] == 503, pause=0.0)  # how soon, benchmarks/observe.py measures
            draining, alive = probe(tmp_path, "/ready")[1], probe(tmp_path, "/live")[0]
            (tmp_path / "finish").touch()
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.communicate()

    assert blocked[0] == 503
    assert f"{tmp_path}/workers.py:" in blocked[1]
    assert live[0] == 200 or may_have_stalled
    assert silent == []
    assert (draining.startswith("not ready\nstopping: SIGTERM\n"), alive) == (True, 200)
    assert b"finished" in out
    assert process.returncode == 0, err
    assert [line for line in notes if line.startswith(("READY", "STOPPING", "EXTEND"))] == [
        "READY=1",
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=41000000",
    ]
