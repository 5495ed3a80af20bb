"""A broker and deliveries that pass everything on to a broker in memory; tests break one promise in each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import attrs
from kernel_memory import MemoryConfig, MemoryDriver

from kernel import Envelope, Outcome
from kernel.abc import Broker, Delivery, Subscription, Topology
from kernel.testing import fake_context


@attrs.define(eq=False)
class Passed(Delivery):
    """A delivery that may be changed on its way."""

    inner: Delivery

    @property
    def envelope(self) -> Envelope:
        return self.inner.envelope

    @property
    def attempt(self) -> int:
        return self.inner.attempt

    @property
    def redelivered(self) -> bool:
        return self.inner.redelivered

    async def settle(self, outcome: Outcome) -> None:
        await self.inner.settle(outcome)


@attrs.define(eq=False)
class Passing(Broker):
    """Keeps every promise; what is made of it breaks one."""

    inner: Broker
    delivery: type[Passed] = Passed

    async def declare(self, topology: Topology) -> None:
        await self.inner.declare(topology)

    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return self._subscribe(subscription)

    @asynccontextmanager
    async def _subscribe(self, subscription: Subscription) -> AsyncGenerator[AsyncIterator[Delivery]]:
        async with self.inner.subscribe(subscription) as deliveries, aclosing(self.passed(deliveries)) as passed:
            yield passed

    async def passed(self, deliveries: AsyncIterator[Delivery]) -> AsyncGenerator[Delivery]:
        async for delivery in deliveries:
            yield self.delivery(delivery)

    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        await self.inner.send(envelope, exchange=exchange, mandatory=mandatory)

    async def peek(self, queue: str, *, limit: int = 100) -> Sequence[Delivery]:
        return await self.inner.peek(queue, limit=limit)


@asynccontextmanager
async def open_passing(kind: type[Any]) -> AsyncGenerator[Broker]:
    """Open a broker of a kind, or one whose deliveries are of that kind."""
    delivery, broker = (kind, Passing) if issubclass(kind, Passed) else (Passed, kind)
    async with MemoryDriver(config=MemoryConfig(), context=fake_context("driver/memory")).open() as inner:
        yield broker(inner, delivery)
