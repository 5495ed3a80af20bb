"""Consumes from a queue until nothing has come for a while, and writes what it acknowledged.

python competing.py FILE
"""

from __future__ import annotations

import os
import sys

import trio
from kernel_sqlite import SqliteConfig, SqliteDriver

from kernel import Ack
from kernel.abc import Subscription
from kernel.testing import fake_context

_PATIENCE = 1.5
"""Seconds; others may have just begun."""


async def consume(path: str) -> None:
    driver = SqliteDriver(config=SqliteConfig(path=path), context=fake_context("driver/queue"))
    async with driver.open() as broker, broker.subscribe(Subscription(queue="q", prefetch=5)) as deliveries:
        os.write(1, b"waits\n")
        with trio.move_on_after(30) as patience:
            async for delivery in deliveries:
                await trio.sleep(0.002)
                await delivery.settle(Ack())
                os.write(1, f"{delivery.envelope.id} {delivery.attempt}\n".encode())
                patience.deadline = trio.current_time() + _PATIENCE


if __name__ == "__main__":
    trio.run(consume, sys.argv[1])
