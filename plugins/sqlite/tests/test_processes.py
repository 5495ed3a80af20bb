from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from kernel import Envelope
from kernel.abc import Queue, Topology

from .conftest import OpenSqlite

SCRIPT = Path(__file__).with_name("competing.py")
PROCESSES = 3
MESSAGES = 300

MANIFEST = """
[kernel]
name = "orders"
[drivers.queue]
plugin = "sqlite"
path = "{path}"
[dispatchers.orders]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "orders"
bindings = ["order.*"]
[workers.fulfil]
use = "fulfil:Fulfil"
dispatcher = "orders"
"""

WORKER = """
from kernel import Envelope, handles
from kernel_sqlite import SqliteBroker


class Fulfil:
    def __init__(self, queue: SqliteBroker) -> None:
        self.queue = queue

    async def __aenter__(self) -> "Fulfil":
        async with self.queue.transaction() as transaction:
            await transaction.execute("CREATE TABLE IF NOT EXISTS fulfilled (number INTEGER)")
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    @handles("order.*")
    async def fulfil(self, order: dict, envelope: Envelope) -> None:
        async with self.queue.transaction() as transaction:
            if await transaction.once(envelope.id):
                await transaction.execute("INSERT INTO fulfilled VALUES (?)", [order["number"]])
        print("fulfilled", order["number"], flush=True)
"""


def start(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, SCRIPT, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def read(process: subprocess.Popen[bytes], lines: list[str], heard: Callable[[], None]) -> None:
    """Take what a process writes, until it ends."""
    assert process.stdout is not None
    with process.stdout as written:
        while line := await trio.to_thread.run_sync(written.readline):
            lines.append(line.decode().strip())
            heard()
    process.wait()


@pytest.mark.slow
async def test_processes_share_a_queue(open_sqlite: OpenSqlite, path: Path) -> None:
    async with open_sqlite() as broker:
        await broker.declare(Topology(queues=[Queue(name="q")]))
        others = [start(path) for _ in range(PROCESSES)]
        for other in others:
            assert other.stdout is not None
            assert await trio.to_thread.run_sync(other.stdout.readline) == b"waits\n"
        outputs: list[list[str]] = [[] for _ in others]
        async with trio.open_nursery() as nursery:
            all_came = trio.Event()
            for other, lines in zip(others, outputs, strict=True):
                nursery.start_soon(
                    read, other, lines, lambda: all_came.set() if sum(map(len, outputs)) >= MESSAGES else None
                )
            for number in range(MESSAGES):
                await broker.send(Envelope(subject="q", id=str(number)), exchange="", mandatory=True)
            with trio.move_on_after(60):
                await all_came.wait()
            for other in others:
                assert other.stdin is not None
                other.stdin.close()

    handled = [line for lines in outputs for line in lines]
    assert sorted(handled) == sorted(f"{number} 1" for number in range(MESSAGES))
    assert all(outputs), "one of the processes got nothing"


@pytest.mark.slow
def test_a_service_handles_what_came_while_it_ran_and_while_it_did_not(path: Path) -> None:
    (path.parent / "kernel.toml").write_text(MANIFEST.format(path=path), encoding="utf-8")
    (path.parent / "fulfil.py").write_text(WORKER, encoding="utf-8")

    assert run_service(path.parent, before=[], during=[1]) == ["fulfilled 1"]
    assert run_service(path.parent, before=[2], during=[3]) == ["fulfilled 2", "fulfilled 3"]


def run_service(folder: Path, *, before: list[int], during: list[int]) -> list[str]:
    """Run it, import orders before its start and while it runs, and return what it handled."""
    for number in before:
        import_order(folder, number)
    with subprocess.Popen(
        [sys.executable, "-m", "kernel", "run"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as service:
        assert service.stdout is not None
        lines = iter(service.stdout.readline, "")
        while "is ready" not in next(lines):
            pass
        for number in during:
            import_order(folder, number)
        handled = [next(line for line in lines if "fulfilled" in line).strip() for _ in (*before, *during)]
        service.send_signal(signal.SIGTERM)
    assert service.returncode == 0
    return handled


def import_order(folder: Path, number: int) -> None:
    record = {
        "id": str(number),
        "subject": "order.new",
        "body": base64.b64encode(json.dumps({"number": number}).encode()).decode(),
        "headers": {},
        "content_type": "application/json",
        "reply_to": "",
        "correlation_id": "",
        "priority": 0,
        "deadline": None,
    }
    command = [sys.executable, "-m", "kernel", "queue", "import", "orders", "-"]
    subprocess.run(command, cwd=folder, input=json.dumps(record), text=True, check=True, capture_output=True)
