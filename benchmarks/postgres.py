"""What a query costs through the driver `postgres`, beside bare psycopg and asyncpg over trio-asyncio, in the same run.

Uses a server of its own on a free port, so that PostgreSQL must be installed. Bare psycopg is there in three ways: the
client that blocks, which has nothing else to wait for, its own connection for asyncio, and that of the driver without a
pool. Beside the time of a query stands what it takes of the CPU in this process; what the server takes is the same for
all.

    uv run --with asyncpg --with trio-asyncio python benchmarks/postgres.py [--seconds 2] [--tasks 16] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import trio
from kernel_postgres import Database, PostgresConfig, PostgresDriver
from kernel_postgres._connection import connect
from psycopg.conninfo import conninfo_to_dict

from kernel import Secret
from kernel.testing import fake_context

sys.path.insert(0, str(Path(__file__).parent.parent / "plugins" / "postgres" / "tests"))

from _cluster import Cluster, open_cluster, programs

Ask = Callable[[], Awaitable[object]]
Figures = tuple[float, float]
"""Queries a second, and seconds of the CPU that each took here."""
BLOCKING, ASYNCIO, DRIVER = "psycopg, blocking, one connection", "psycopg on asyncio, one connection", "driver postgres"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    binaries = programs()
    if binaries is None:
        sys.exit("needs PostgreSQL")
    with tempfile.TemporaryDirectory() as folder, open_cluster(Path(folder), binaries) as cluster:
        figures: dict[str, list[Figures]] = {}
        for _ in range(arguments.rounds):
            for name, found in one_round(cluster, arguments).items():
                figures.setdefault(name, []).append(found)
    medians = {name: (median_of(values, 0), median_of(values, 1)) for name, values in figures.items()}
    for name, (rate, cpu) in medians.items():
        spread = [each[0] for each in figures[name]]
        print(
            f"{name:45s} {rate:8.0f}/s ({min(spread):.0f} to {max(spread):.0f}) {1e6 / rate:7.0f} us, {1e6 * cpu:4.0f} us of the CPU"
        )
    compare(medians, f"{DRIVER}, one task", BLOCKING)
    compare(medians, f"{DRIVER}, one task", ASYNCIO)
    compare(medians, f"asyncpg over trio-asyncio, {arguments.tasks} tasks", f"{DRIVER}, {arguments.tasks} tasks")


def median_of(values: list[Figures], which: int) -> float:
    return statistics.median(each[which] for each in values)


def compare(medians: dict[str, Figures], one: str, other: str) -> None:
    if one in medians:
        times, cpu = medians[other][0] / medians[one][0], medians[one][1] / medians[other][1]
        print(f"{one}: {times:.2f} times the time, {cpu:.2f} times the CPU of {other}")


def one_round(cluster: Cluster, arguments: argparse.Namespace) -> dict[str, Figures]:
    rates = {
        BLOCKING: blocking(cluster, arguments.seconds),
        ASYNCIO: asyncio.run(on_asyncio(cluster, arguments.seconds)),
    }
    rates |= trio.run(on_trio, cluster, arguments.seconds, arguments.tasks)
    if importlib.util.find_spec("asyncpg") and importlib.util.find_spec("trio_asyncio"):
        rates |= trio.run(bridged, cluster, arguments.seconds, arguments.tasks)
    return rates


def blocking(cluster: Cluster, seconds: float) -> Figures:
    with psycopg.connect(cluster.dsn, password=cluster.password, autocommit=True) as connection:
        began, until, count = time.process_time(), time.perf_counter() + seconds, 0
        while time.perf_counter() < until:
            connection.execute("SELECT %s::int", (count,)).fetchall()
            count += 1
    return count / seconds, (time.process_time() - began) / count


async def on_asyncio(cluster: Cluster, seconds: float) -> Figures:
    password = cluster.password
    async with await psycopg.AsyncConnection.connect(cluster.dsn, password=password, autocommit=True) as connection:
        began, until, count = time.process_time(), time.perf_counter() + seconds, 0
        while time.perf_counter() < until:
            await bare(connection)
            count += 1
    return count / seconds, (time.process_time() - began) / count


async def rate_of(ask: Ask, seconds: float, tasks: int) -> Figures:
    count, began, until = 0, time.process_time(), time.perf_counter() + seconds

    async def work() -> None:
        nonlocal count
        await trio.lowlevel.checkpoint()
        while time.perf_counter() < until:
            await ask()
            count += 1

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(work)
    return count / seconds, (time.process_time() - began) / count


async def on_trio(cluster: Cluster, seconds: float, tasks: int) -> dict[str, Figures]:
    params = conninfo_to_dict(cluster.dsn, password=cluster.password)
    connection = await connect(params, steps=trio.CapacityLimiter(1))
    rates = {"psycopg on trio, one connection": await rate_of(lambda: bare(connection), seconds, 1)}
    connection.abort()
    config = PostgresConfig(dsn=cluster.dsn, password=Secret(cluster.password), pool_max=tasks)
    async with PostgresDriver(config=config, context=fake_context("driver/db")).open() as database:
        rates[f"{DRIVER}, one task"] = await rate_of(lambda: pooled(database), seconds, 1)
        rates[f"{DRIVER}, {tasks} tasks"] = await rate_of(lambda: pooled(database), seconds, tasks)
    return rates


async def bare(connection: psycopg.AsyncConnection[Any]) -> object:
    cursor = await connection.execute("SELECT %s::int", (1,))
    return await cursor.fetchall()


async def pooled(database: Database) -> object:
    return await database.execute("SELECT %s::int", (1,))


async def bridged(cluster: Cluster, seconds: float, tasks: int) -> dict[str, Figures]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import asyncpg  # noqa: PLC0415  optional
        import trio_asyncio  # noqa: PLC0415  optional

    async with trio_asyncio.open_loop():
        make = trio_asyncio.aio_as_trio(asyncpg.create_pool)
        pool = await make(cluster.dsn, password=cluster.password, min_size=1, max_size=tasks)
        fetch = trio_asyncio.aio_as_trio(pool.fetch)
        rates = {
            "asyncpg over trio-asyncio, one task": await rate_of(lambda: fetch("SELECT $1::int", 1), seconds, 1),
            f"asyncpg over trio-asyncio, {tasks} tasks": await rate_of(
                lambda: fetch("SELECT $1::int", 1), seconds, tasks
            ),
        }
        await trio_asyncio.aio_as_trio(pool.close)()
    return rates


if __name__ == "__main__":
    main()
