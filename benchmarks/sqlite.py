"""Messages per second through the driver `sqlite`, beside bare SQLite on the same disk.

Prints what 64 publishers get confirmed, what consumers take and acknowledge, how the cost grows with the queue, and
how long a file of that size takes to open. Wall and CPU, the median of some rounds; takes about two minutes.

    uv run python benchmarks/sqlite.py [--rounds 3] [--seconds 4] [--grow 1000000] [--path FOLDER]
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import final

import attrs
import trio
from kernel_sqlite import SqliteBroker, SqliteConfig, SqliteDriver

from kernel import Ack, Envelope
from kernel.abc import Queue, Subscription, Topology
from kernel.testing import fake_context

BODY = os.urandom(200)
PUBLISHERS = 64
BATCH = 100


@final
@attrs.define
class Measure:
    """What a stretch of work took."""

    count: int = 0
    wall: float = 0.0
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        return self.count / self.wall

    def __str__(self) -> str:
        return f"{self.rate:>9,.0f} /s   {self.cpu / self.count * 1e6:6.1f} us CPU each"


@contextmanager
def measuring() -> Iterator[Measure]:
    measure = Measure()
    wall, cpu = time.perf_counter(), time.process_time()
    yield measure
    measure.wall, measure.cpu = time.perf_counter() - wall, time.process_time() - cpu


def bare(path: Path, seconds: float) -> Measure:
    """Commit batches of 100 rows, each with a sync."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, body BLOB)")
        with measuring() as measure:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT INTO message (body) VALUES (?)", [(BODY,)] * BATCH)
                connection.execute("COMMIT")
                measure.count += BATCH
    return measure


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[SqliteBroker]:
    config = SqliteConfig(path=str(path), max_length=10_000_000)
    async with SqliteDriver(config=config, context=fake_context("driver/queue")).open() as broker:
        await broker.declare(Topology(queues=[Queue(name="q")]))
        yield broker


async def publish(broker: SqliteBroker, *, seconds: float = 1e9, count: int = 10**9) -> Measure:
    with measuring() as measure:
        end = trio.current_time() + seconds

        async def send() -> None:
            await trio.lowlevel.checkpoint()
            while trio.current_time() < end and measure.count < count:
                measure.count += 1
                await broker.send(Envelope(subject="q", body=BODY), exchange="", mandatory=True)

        async with trio.open_nursery() as nursery:
            for _ in range(PUBLISHERS):
                nursery.start_soon(send)
    return measure


async def consume(broker: SqliteBroker, count: int) -> Measure:
    """Take and acknowledge, 64 in flight."""
    with measuring() as measure:
        async with broker.subscribe(Subscription(queue="q", prefetch=PUBLISHERS)) as deliveries:

            async def work() -> None:
                await trio.lowlevel.checkpoint()
                while measure.count < count:
                    measure.count += 1
                    await (await anext(deliveries)).settle(Ack())

            async with trio.open_nursery() as nursery:
                for _ in range(PUBLISHERS):
                    nursery.start_soon(work)
    return measure


async def one_round(folder: Path, seconds: float) -> tuple[Measure, Measure]:
    async with opened(folder / "queue.db") as broker:
        sent = await publish(broker, seconds=seconds)
        taken = await consume(broker, sent.count)
    return sent, taken


async def grow(path: Path, total: int) -> list[tuple[int, Measure]]:
    """Fill a queue in ten steps; nothing is taken."""
    async with opened(path) as broker:
        return [(total * step // 10, await publish(broker, count=total // 10)) for step in range(1, 11)]


def in_folder(parent: str | None) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="benchmark-", dir=parent)


def compare(arguments: argparse.Namespace) -> None:
    rounds: list[tuple[Measure, Measure, Measure]] = []
    for number in range(arguments.rounds):
        with in_folder(arguments.path) as folder:
            floor = bare(Path(folder) / "bare.db", arguments.seconds / 2)
            sent, taken = trio.run(one_round, Path(folder), arguments.seconds)
        rounds.append((floor, sent, taken))
        print(f"round {number + 1}\n  bare SQLite, 100 a commit {floor}")
        print(f"  {PUBLISHERS} publishers, confirmed  {sent}\n  taken and acknowledged    {taken}")
    floors, sents, takens = ([measure.rate for measure in column] for column in zip(*rounds, strict=True))
    ratio = statistics.median(sent / floor for floor, sent, _ in rates(rounds))
    print(f"\nmedian: bare {statistics.median(floors):,.0f} /s, confirmed {statistics.median(sents):,.0f} /s,", end=" ")
    print(f"acknowledged {statistics.median(takens):,.0f} /s; confirmed : bare = {ratio:.2f}")


def rates(rounds: list[tuple[Measure, Measure, Measure]]) -> Iterator[tuple[float, float, float]]:
    for floor, sent, taken in rounds:
        yield floor.rate, sent.rate, taken.rate


def show_growth(arguments: argparse.Namespace) -> None:
    with in_folder(arguments.path) as folder:
        path = Path(folder) / "large.db"
        print(f"\ngrowing to {arguments.grow:,} messages")
        steps = trio.run(grow, path, arguments.grow)
        for total, measure in steps:
            print(f"  {total:>9,}  {measure}")
        last, first = (statistics.median(measure.rate for _, measure in part) for part in (steps[-3:], steps[:3]))
        print(f"  rate of the last three steps : the first three = {last / first:.2f}")
        print(f"  {path.stat().st_size / 2**20:,.0f} MiB")
        began = time.perf_counter()
        trio.run(first_delivery, path, began)


async def first_delivery(path: Path, began: float) -> None:
    async with opened(path) as broker:
        print(f"  opened in {time.perf_counter() - began:.3f} s", end=", ")
        await consume(broker, 1)
        print(f"first delivery acknowledged after {time.perf_counter() - began:.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--grow", type=int, default=1_000_000)
    parser.add_argument("--path", help="a folder on the disk to measure")
    arguments = parser.parse_args()
    compare(arguments)
    if arguments.grow:
        show_growth(arguments)


if __name__ == "__main__":
    main()
