from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import pytest
import trio
from kernel_memory import MemoryConfig, MemoryDriver

from kernel import Envelope
from kernel.abc import Broker, Delivery, Subscription, Topology
from kernel.errors import ConflictError
from kernel.testing import check_broker, fake_context


@asynccontextmanager
async def open_memory() -> AsyncGenerator[Broker]:
    async with MemoryDriver(config=MemoryConfig(), context=fake_context("driver/memory")).open() as broker:
        yield broker


@attrs.define(eq=False)
class OnDurableQueuesAlone(Broker):
    """A broker that has no other queues, but for exclusive ones, as RabbitMQ 4.3 has none."""

    inner: Broker
    known: set[str] = attrs.field(factory=set[str])

    async def declare(self, topology: Topology) -> None:
        for queue in topology.queues:
            if not (queue.durable or queue.exclusive or queue.name in self.known):
                raise ConflictError(f'queue "{queue.name}" is transient')
            self.known.add(queue.name)
        await self.inner.declare(topology)

    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return self.inner.subscribe(subscription)

    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        await self.inner.send(envelope, exchange=exchange, mandatory=mandatory)

    async def peek(self, queue: str, *, limit: int = 100) -> Sequence[Delivery]:
        return await self.inner.peek(queue, limit=limit)


@asynccontextmanager
async def open_on_durable_queues_alone() -> AsyncGenerator[Broker]:
    async with open_memory() as broker:
        yield OnDurableQueuesAlone(broker)


async def test_a_broker_that_has_durable_queues_alone_can_be_checked(autojump_clock: trio.testing.MockClock) -> None:
    await check_broker(open_on_durable_queues_alone, capabilities=MemoryDriver.capabilities, durable=True)
    with pytest.raises(AssertionError, match="is transient"):
        await check_broker(open_on_durable_queues_alone, capabilities=MemoryDriver.capabilities)


async def test_memory_keeps_every_promise_of_a_broker(autojump_clock: trio.testing.MockClock) -> None:
    await check_broker(open_memory, capabilities=MemoryDriver.capabilities)
