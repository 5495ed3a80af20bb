"""Consumes from a queue until its standard input ends, and writes what it acknowledged.

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


async def consume(path: str) -> None:
    driver = SqliteDriver(config=SqliteConfig(path=path), context=fake_context("driver/queue"))
    async with driver.open() as broker, broker.subscribe(Subscription(queue="q", prefetch=5)) as deliveries:
        os.write(1, b"waits\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_the_end, nursery.cancel_scope)
            async for delivery in deliveries:
                await trio.sleep(0.002)
                await delivery.settle(Ack())
                os.write(1, f"{delivery.envelope.id} {delivery.attempt}\n".encode())


async def wait_for_the_end(scope: trio.CancelScope) -> None:
    await trio.to_thread.run_sync(sys.stdin.read)
    scope.cancel()


if __name__ == "__main__":
    trio.run(consume, sys.argv[1])
