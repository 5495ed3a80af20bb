"""A process that handles messages, its effect and its own message in one transaction, until it is killed.

    python killing.py DSN PASSWORD FILE          run a victim until it is killed
    python killing.py DSN PASSWORD FILE end      run one that ends when nothing is left

The messages come from, and go to, a broker in a file. What is to hold: every effect once, and everything published that
was committed.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import psycopg
import trio
from kernel_postgres import Database, OutboxRelay, PostgresConfig, PostgresDriver, RelayConfig
from kernel_sqlite import SqliteConfig, SqliteDriver

from kernel import Ack, Envelope, Retry, Secret
from kernel.abc import Broker, Queue, Subscription, Topology
from kernel.errors import KernelError
from kernel.testing import fake_context

if TYPE_CHECKING:
    from ._cluster import Cluster

LEASE = 0.4
"""Seconds; short, so that what a victim had in hand comes back while the next one runs."""
_QUEUES = Topology(queues=[Queue(name="in"), Queue(name="out")])


# --- the victim ---------------------------------------------------------------------------------------------------


async def consume(database: Database, broker: Broker) -> None:
    async with broker.subscribe(Subscription(queue="in", prefetch=4)) as deliveries:

        async def work() -> None:
            async for delivery in deliveries:
                name = delivery.envelope.id
                try:
                    async with database.transaction() as transaction:
                        if await transaction.once(name):
                            await transaction.execute("INSERT INTO effect VALUES (%s)", [name])
                            await transaction.send(Envelope(subject="out", id=name), exchange="")
                except (psycopg.Error, KernelError):
                    await delivery.settle(Retry())
                else:
                    await delivery.settle(Ack())

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(work)


async def suffer(dsn: str, password: str, path: str, *, is_last: bool) -> None:
    config = PostgresConfig(dsn=dsn, password=Secret(password), outbox=True)
    file = SqliteConfig(path=path, lease=LEASE, transaction_timeout=LEASE / 2, synchronous="normal")
    async with (
        SqliteDriver(config=file, context=fake_context("driver/queue")).open() as broker,
        PostgresDriver(config=config, context=fake_context("driver/db")).open() as database,
        trio.open_nursery() as nursery,
    ):
        os.write(1, b"open\n")
        nursery.start_soon(consume, database, broker)
        relay = OutboxRelay(database, broker, fake_context("worker/relay"), RelayConfig(batch=5, backoff_initial=0.05))
        nursery.start_soon(relay.run)
        if is_last:
            await wait_idle(database, broker)
            nursery.cancel_scope.cancel()


async def wait_idle(database: Database, broker: Broker) -> None:
    while await broker.peek("in") or await database.execute("SELECT 1 FROM kernel_outbox LIMIT 1"):  # noqa: ASYNC110
        await trio.sleep(0.05)
    await trio.sleep(2 * LEASE)  # what was claimed and not settled when its process died comes back
    if await broker.peek("in"):
        await wait_idle(database, broker)


# --- the one that kills -------------------------------------------------------------------------------------------


@attrs.frozen
class Verdict:
    messages: int
    kills: int
    restarts: int
    missing_effects: int
    doubled_effects: int
    unpublished: int
    published_without_effect: int


def kill_often(cluster: Cluster, path: Path, *, messages: int, kills: int, restarts: int, seed: int) -> Verdict:
    """Kill victims, and the server below them, at random instants; then let one finish, and count."""
    instants = random.Random(seed)
    names = [f"m{number}" for number in range(messages)]
    trio.run(_fill, path, names)
    rounds = ["kill"] * kills + ["restart"] * restarts
    instants.shuffle(rounds)
    command = [sys.executable, __file__, cluster.dsn, cluster.password, str(path)]
    for what in rounds:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as victim:
            assert victim.stdout is not None
            assert victim.stdout.readline() == b"open\n"
            time.sleep(instants.uniform(0.0, 0.15))
            if what == "restart":
                cluster.stop()
                cluster.start()
                time.sleep(instants.uniform(0.0, 0.15))
            victim.kill()
    subprocess.run([*command, "end"], stdout=subprocess.DEVNULL, check=True, timeout=60)
    effects = Counter(row[0] for row in cluster.query("SELECT id FROM effect"))
    published = trio.run(_published, path)
    return Verdict(
        messages=messages,
        kills=kills,
        restarts=restarts,
        missing_effects=len(set(names) - set(effects)),
        doubled_effects=sum(count > 1 for count in effects.values()),
        unpublished=len(set(effects) - published),
        published_without_effect=len(published - set(effects)),
    )


async def _fill(path: Path, names: list[str]) -> None:
    config = SqliteConfig(path=str(path), lease=LEASE, transaction_timeout=LEASE / 2, synchronous="normal")
    async with SqliteDriver(config=config, context=fake_context("driver/queue")).open() as broker:
        await broker.declare(_QUEUES)
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(lambda name=name: broker.send(Envelope(subject="in", id=name), exchange=""))


async def _published(path: Path) -> set[str]:
    config = SqliteConfig(path=str(path), lease=LEASE, transaction_timeout=LEASE / 2, synchronous="normal")
    async with SqliteDriver(config=config, context=fake_context("driver/queue")).open() as broker:
        return {delivery.envelope.id for delivery in await broker.peek("out", limit=100_000)}


if __name__ == "__main__":
    trio.run(lambda: suffer(*sys.argv[1:4], is_last=len(sys.argv) > 4))
