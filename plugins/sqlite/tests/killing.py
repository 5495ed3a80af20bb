"""A process that publishes and consumes until it is killed, and the one that kills it again and again.

    python killing.py FILE PREFIX CONCURRENCY     run a victim until it is killed
    python killing.py FILE PREFIX CONCURRENCY end run one that only consumes, until nothing is left

A victim writes what was confirmed to it (`+ id`) and what it begins to handle (`! id`) to standard output, each with
one system call: what is not there, it has not seen.
"""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import attrs
import trio
from kernel_sqlite import SqliteBroker, SqliteConfig, SqliteDriver

from kernel import Ack, Envelope
from kernel.abc import Queue, Subscription, Topology
from kernel.testing import fake_context

LEASE = 0.4
"""Seconds; short, so that what a victim had in hand comes back while the next one runs."""
_BACKLOG = 1000
"""Confirmed messages of one victim, at most: the last one has to handle what is left of them."""


# --- the victim ---------------------------------------------------------------------------------------------------


def write(mark: str, text: str) -> None:
    os.write(1, f"{mark} {text}\n".encode())


async def publish(broker: SqliteBroker, prefix: str, task: int) -> None:
    for number in range(_BACKLOG):
        name = f"{prefix}.{task}.{number}"
        await broker.send(Envelope(subject="q", body=name.encode(), id=name), exchange="", mandatory=True)
        write("+", name)
        await trio.sleep(0.004)


async def consume(broker: SqliteBroker, concurrency: int) -> None:
    """Handle each message once, its effect and its id in one transaction, and acknowledge it after that."""
    async with broker.subscribe(Subscription(queue="q", prefetch=concurrency)) as deliveries:

        async def work() -> None:
            async for delivery in deliveries:
                name = delivery.envelope.id
                write("!", name)
                async with broker.transaction() as transaction:
                    if await transaction.once(name):
                        await transaction.execute("INSERT INTO effect VALUES (?)", [name])
                await delivery.settle(Ack())

        async with trio.open_nursery() as nursery:
            for _ in range(concurrency):
                nursery.start_soon(work)


async def suffer(path: str, prefix: str, concurrency: int, *, is_last: bool) -> None:
    write("*", "opens")
    config = SqliteConfig(path=path, lease=LEASE, transaction_timeout=LEASE / 2)
    async with SqliteDriver(config=config, context=fake_context("driver/queue")).open() as broker:
        await broker.declare(Topology(queues=[Queue(name="q")]))
        async with broker.transaction() as transaction:
            await transaction.execute("CREATE TABLE IF NOT EXISTS effect (id TEXT)")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume, broker, concurrency)
            if is_last:
                await wait_empty(path)
                nursery.cancel_scope.cancel()
            else:
                for task in range(concurrency):
                    nursery.start_soon(publish, broker, prefix, task)


async def wait_empty(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        while connection.execute("SELECT EXISTS (SELECT 1 FROM kernel_entry)").fetchone()[0]:  # noqa: ASYNC110  it happens in a file
            await trio.sleep(LEASE / 4)


# --- the one that kills -------------------------------------------------------------------------------------------


@attrs.frozen
class Verdict:
    """What became of it."""

    kills: int
    confirmed: int
    lost: int
    """Confirmed and never handled."""
    duplicates: int
    """Handlers that were begun for a message for which one had been begun before."""
    wrong_effects: int
    """Messages whose effect is there twice, or missing although they were confirmed."""
    integrity: str


def kill_often(path: Path, kills: int, *, concurrency: int, seed: int) -> Verdict:
    """Start victims and kill each at a random instant; then let one finish, and count."""
    instants = random.Random(seed)
    confirmed: set[str] = set()
    begun: Counter[str] = Counter()
    for number in range(kills):
        command = [sys.executable, __file__, str(path), str(number), str(concurrency)]
        victim = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"* opens\n"
        time.sleep(instants.uniform(0.0, 0.6))
        victim.kill()
        note(victim.communicate()[0], confirmed, begun)
    last = subprocess.run([*command[:3], "last", str(concurrency), "end"], stdout=subprocess.PIPE, check=True)
    note(last.stdout, confirmed, begun)
    return judge(path, kills, confirmed, begun)


def note(output: bytes, confirmed: set[str], begun: Counter[str]) -> None:
    for line in output.decode().splitlines():
        mark, name = line.split()
        if mark == "+":
            confirmed.add(name)
        elif mark == "!":
            begun[name] += 1


def judge(path: Path, kills: int, confirmed: set[str], begun: Counter[str]) -> Verdict:
    with closing(sqlite3.connect(path)) as connection:
        effects = Counter(row[0] for row in connection.execute("SELECT id FROM effect"))
        (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
    return Verdict(
        kills=kills,
        confirmed=len(confirmed),
        lost=len(confirmed - set(begun)),
        duplicates=sum(count - 1 for count in begun.values()),
        wrong_effects=len(confirmed - set(effects)) + sum(count != 1 for count in effects.values()),
        integrity=integrity,
    )


if __name__ == "__main__":
    trio.run(lambda: suffer(sys.argv[1], sys.argv[2], int(sys.argv[3]), is_last=len(sys.argv) > 4))
