"""Publishes to a file whose disk reports errors; run under `strace -e inject`. Writes what became of each message.

python failing_syncs.py FILE COUNT
"""

from __future__ import annotations

import os
import sys

import trio
from kernel_sqlite import SqliteConfig, SqliteDriver

from kernel import Envelope
from kernel.abc import Queue, Topology
from kernel.errors import SendError
from kernel.testing import fake_context


async def publish(path: str, count: int) -> None:
    driver = SqliteDriver(config=SqliteConfig(path=path), context=fake_context("driver/queue"))
    async with driver.open() as broker:
        await broker.declare(Topology(queues=[Queue(name="q")]))
        for number in range(count):
            try:
                await broker.send(Envelope(subject="q", id=str(number)), exchange="", mandatory=True)
            except SendError as error:
                os.write(1, f"{type(error).__name__} {number}\n".encode())
            else:
                os.write(1, f"confirmed {number}\n".encode())


if __name__ == "__main__":
    trio.run(publish, sys.argv[1], int(sys.argv[2]))
