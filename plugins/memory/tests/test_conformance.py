from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from kernel_memory import MemoryConfig, MemoryDriver

from kernel.abc import Broker
from kernel.testing import check_broker, fake_context


@asynccontextmanager
async def open_memory() -> AsyncGenerator[Broker]:
    async with MemoryDriver(config=MemoryConfig(), context=fake_context("driver/memory")).open() as broker:
        yield broker


async def test_memory_keeps_every_promise_of_a_broker(autojump_clock: trio.testing.MockClock) -> None:
    await check_broker(open_memory, capabilities=MemoryDriver.capabilities)
