"""The broker: the store behind the contract of `kernel.abc.Broker`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, final

import attrs
from typing_extensions import override

from kernel import Envelope, Pace
from kernel.abc import Broker, Delivery, Subscription, Topology
from kernel.errors import ConflictError, UnavailableError

if TYPE_CHECKING:
    from ._consumer import Consumer
    from ._ledger import Stats
    from ._queue import MemoryQueue
    from ._store import Store


@final
@attrs.define(eq=False, repr=False)
class MemoryBroker(Broker):
    """A broker inside the process; what it holds ends with it.

    Everything but waiting for a message takes effect at once: if cancelled, nothing was done. A queue whose
    `dead_letters` nobody declared is refused.
    """

    _store: Store
    _pace: Pace = attrs.field(factory=Pace, init=False)
    _consumers: set[Consumer] = attrs.field(factory=set["Consumer"], init=False)

    @property
    def stats(self) -> Stats:
        """What became of the messages so far; stays readable after the broker has closed."""
        return self._store.ledger.snapshot()

    @override
    async def declare(self, topology: Topology) -> None:
        await self._pace.step()
        self._check()
        self._store.declare(topology)

    @override
    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return self._subscribe(subscription)

    @asynccontextmanager
    async def _subscribe(self, subscription: Subscription) -> AsyncGenerator[AsyncIterator[Delivery]]:
        await self._pace.step()
        self._check()
        queue = self._store.queue(subscription.queue)
        consumer = self._join(queue, subscription)
        try:
            yield consumer
        finally:
            self._leave(consumer, queue)

    @override
    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        await self._pace.step()
        self._check()
        self._store.send(envelope, exchange=exchange, mandatory=mandatory)

    @override
    async def retire(self, topology: Topology) -> Sequence[str]:
        await self._pace.step()
        self._check()
        return self._store.retire(topology)

    @override
    async def peek(self, queue: str, *, limit: int = 100) -> Sequence[Delivery]:
        await self._pace.step()
        self._check()
        from ._delivery import PeekedDelivery  # noqa: PLC0415  see `MemoryDriver.preload`

        return [PeekedDelivery(entry) for entry in self._store.queue(queue).peek(limit)]

    def close(self) -> dict[str, int]:
        """Forget everything; whoever waits for a message gets `UnavailableError`.

        Returns:
            How many messages each queue held, of those that hold any and are not of one connection alone.
        """
        for consumer in self._consumers:
            consumer.leave()
        self._consumers.clear()
        return self._store.close()

    def _check(self) -> None:
        if self._store.closed:
            raise UnavailableError("the broker in memory is closed, and what it held is gone")

    def _join(self, queue: MemoryQueue, subscription: Subscription) -> Consumer:
        if subscription.prefetch < 1:
            raise ValueError(f"prefetch must be 1 or more, not {subscription.prefetch}")
        if queue.spec.exclusive and queue.consumers:
            raise ConflictError(f'queue "{queue.spec.name}" is exclusive and has a consumer')
        from ._consumer import Consumer  # noqa: PLC0415  as above

        queue.consumers += 1
        consumer = Consumer(queue, subscription.prefetch, self._store, self._pace, subscription.reply_exchange)
        self._consumers.add(consumer)
        return consumer

    def _leave(self, consumer: Consumer, queue: MemoryQueue) -> None:
        consumer.leave()
        self._consumers.discard(consumer)
        queue.consumers -= 1
        if queue.spec.exclusive and not queue.gone:
            self._store.remove(queue)
