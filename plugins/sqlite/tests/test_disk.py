from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner
from kernel_sqlite import SqliteBroker
from kernel_sqlite._commands import queue
from trio.testing import wait_all_tasks_blocked

from kernel import Ack, ComponentFailed, Envelope, Event, StateChanged, handles
from kernel._manifest.registry import Registry, discover
from kernel.abc import Queue, Subscription, Topology
from kernel.errors import StorageFullError
from kernel.testing import open_kernel

from .conftest import OpenSqlite

SCRIPT = Path(__file__).with_name("failing_syncs.py")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB, half of which is taken by a file that can be removed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        (folder / "filler").write_bytes(bytes(3 * 2**20))
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


async def fill(broker: SqliteBroker, confirmed: list[str]) -> None:
    """Publish until there is no space."""
    for number in range(100_000):
        name = f"{len(confirmed)}-{number}"
        await broker.send(Envelope(subject="q", id=name, body=bytes(1000)), exchange="", mandatory=True)
        confirmed.append(name)


async def drain(broker: SqliteBroker, count: int) -> list[str]:
    taken: list[str] = []
    async with broker.subscribe(Subscription(queue="q", prefetch=50)) as deliveries:
        while len(taken) < count:
            with trio.fail_after(10):
                delivery = await anext(deliveries)
            taken.append(delivery.envelope.id)
            await delivery.settle(Ack())
    return taken


@pytest.mark.slow
async def test_a_full_disk_is_told_confirms_nothing_and_heals(open_sqlite: OpenSqlite, small_disk: Path) -> None:
    events: list[Event] = []
    confirmed: list[str] = []
    async with open_sqlite(events, path=str(small_disk / "q.db")) as broker:
        await broker.declare(Topology(queues=[Queue(name="q")]))
        with pytest.raises(StorageFullError, match=r'no space left .* a little will do: "q.db-wal"'):
            await fill(broker, confirmed)
        peeked = await broker.peek("q", limit=100_000)
        await trio.Path(small_disk / "filler").unlink()
        await broker.send(Envelope(subject="q", id="after"), exchange="", mandatory=True)
        taken = await drain(broker, len(peeked) + 1)

    assert len(confirmed) > 100
    assert [delivery.envelope.id for delivery in peeked] == confirmed
    assert taken == [*confirmed, "after"]
    assert [event.new.name for event in events if isinstance(event, StateChanged)] == ["DEGRADED", "READY"]


@pytest.mark.slow
async def test_a_vacuum_that_has_no_room_says_so(open_sqlite: OpenSqlite, small_disk: Path) -> None:
    """It is what somebody tries whose disk is full; what is in the file stays."""
    path = small_disk / "q.db"
    async with open_sqlite([], path=str(path)) as broker:
        await broker.declare(Topology(queues=[Queue(name="q")]))
        for number in range(100):
            await broker.send(Envelope(subject="q", id=str(number), body=bytes(1000)), exchange="", mandatory=True)
    with contextlib.suppress(OSError), (small_disk / "more").open("wb") as more:
        while True:
            more.write(bytes(4096))
            more.flush()

    done = CliRunner().invoke(queue, ["vacuum", "--file", str(path)])
    listed = CliRunner().invoke(queue, ["list", "--file", str(path)])
    (small_disk / "more").unlink()
    counted = json.loads(CliRunner().invoke(queue, ["list", "--json", "--file", str(path)]).output)

    assert (done.exit_code, listed.exit_code) in {(1, 0), (1, 1)}
    assert f'there is no space left for "{path}":' in done.output
    assert "make room" in done.output
    assert [row["ready"] for row in counted] == [100]


class Slow:
    """Handles what comes while the disk is full, and remembers it."""

    def __init__(self, config: Mapping[str, float]) -> None:
        self.seconds = config["seconds"]
        self.handled: list[str] = []

    @handles("#")
    async def take(self, payload: Any, envelope: Envelope) -> None:
        self.handled.append(envelope.id)
        await trio.sleep(self.seconds)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.5], ids=["little-backlog", "some-backlog", "much-backlog"])
async def test_a_service_on_a_full_disk_waits_degraded_and_heals(small_disk: Path, seconds: float) -> None:
    """Every message is handled once, and nothing is restarted."""
    table = {
        "kernel": {"name": "disk"},
        "drivers": {"queue": {"plugin": "sqlite", "path": str(small_disk / "q.db"), "synchronous": "normal"}},
        "dispatchers": {
            "in": {"plugin": "consumer", "driver": "queue", "protocol": "raw", "queue": "q", "concurrency": 200}
        },
        "workers": {"slow": {"use": "slow", "dispatcher": "in", "config": {"seconds": seconds}}},
    }
    registry = Registry((*discover().plugins, *Registry.of({"workers": {"slow": Slow}}).plugins))
    confirmed: list[str] = []
    async with open_kernel(table, registry=registry) as service:
        broker = service.resource("driver/queue")
        with pytest.raises(StorageFullError):
            await fill(broker, confirmed)
        await trio.sleep(3.0)  # beyond some retries of what the file does not take
        await trio.Path(small_disk / "filler").unlink()
        worker = service.resource("worker/slow")
        with trio.fail_after(60):
            while set(worker.handled) < set(confirmed):  # noqa: ASYNC110  nothing else tells
                await trio.sleep(0.1)

    assert Counter(worker.handled) == Counter(confirmed)
    assert not [event for event in service.events if isinstance(event, ComponentFailed)]


@pytest.mark.slow
@pytest.mark.parametrize("first", [12, 13, 14, 15, 16])
def test_a_failed_sync_confirms_nothing_and_heals(path: Path, first: int) -> None:
    """Every seventh sync fails, from the first on: of commits, and of the log that is written into the file."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    inject = f"inject=fsync,fdatasync:error=EIO:when={first}+7"
    strace = ["strace", "-f", "-qq", "-o", path.with_name("trace"), "-e", "trace=fsync,fdatasync", "-e", inject]
    done = subprocess.run([*strace, sys.executable, SCRIPT, path, "60"], check=True, stdout=subprocess.PIPE)
    told = [line.split() for line in done.stdout.decode().splitlines()]
    confirmed = {number for word, number in told if word == "confirmed"}
    failed = {number for word, number in told if word != "confirmed"}
    with closing(sqlite3.connect(path)) as connection:
        stored = {row[0] for row in connection.execute("SELECT id FROM kernel_content")}
        (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()

    assert (len(told), confirmed - stored, integrity) == (60, set(), "ok")
    assert failed
    assert max(map(int, confirmed)) > min(map(int, failed)), "it took nothing any more after an error"


@pytest.mark.slow
async def test_a_log_that_a_reader_keeps_is_told_and_heals(
    open_sqlite: OpenSqlite, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernel_sqlite._access.LOG_LIMIT", 2**20)
    events: list[Event] = []
    async with open_sqlite(events) as broker:
        await broker.declare(Topology(queues=[Queue(name="q")]))
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM kernel_content").fetchone()
            await grow(broker, path, 2**21)
            told = [event.reason for event in events if isinstance(event, StateChanged)]
        monkeypatch.setattr("kernel_sqlite._access.LOG_LIMIT", 2**30)
        await grow(broker, path, 0)
        await wait_all_tasks_blocked()

    assert [reason.partition(" has grown")[0] for reason in told] == [f'"{path}-wal"']
    assert [event.new.name for event in events if isinstance(event, StateChanged)] == ["DEGRADED", "READY"]


async def grow(broker: SqliteBroker, path: Path, size: int) -> None:
    """Publish until the log has that size, and once more."""
    log = path.with_name(f"{path.name}-wal")
    while log.stat().st_size < size:
        await broker.send(Envelope(subject="q", body=bytes(50_000)), exchange="", mandatory=True)
    await broker.send(Envelope(subject="q", body=b"last"), exchange="", mandatory=True)
