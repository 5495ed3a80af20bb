"""The broker: two connections behind the contract of `kernel.abc.Broker`, one to send and one to consume.

A broker that is short of memory reads nothing from connections that send: what settles must not wait behind.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, final

import attrs
import trio
from typing_extensions import override

from kernel import Envelope
from kernel.abc import Broker, Delivery, Settlements, Spared, Subscription, Topology
from kernel.errors import UnavailableError

from .._addresses import Addresses
from .._errors import LinkLostError
from ..link.keeper import Keeper
from ..management.directory import Directory
from .catalog import Catalog
from .consumer import Consumer
from .in_flight import InFlight
from .post import Post

_LEAVE_TIMEOUT: Final = 1.0
"""Seconds that leaving a subscription waits for the broker."""


@final
@attrs.define(eq=False, repr=False)
class Amqp10Broker(Broker):
    """A broker of AMQP 1.0, through connections that heal.

    Sending waits for a connection inside the caller's own deadline. A subscription ends with its connection. Over
    RabbitMQ, whether a queue gets a message is asked of its HTTP API, and taken as known for some seconds.
    """

    _addresses: Addresses
    _catalog: Catalog
    _directory: Directory | None
    _post: Post
    _consuming: Keeper
    _start: Callable[[Callable[[], Awaitable[None]]], None]
    """Starts a task that lives as long as the driver."""
    _spared: Spared = attrs.field(factory=Spared, init=False)
    _settlements: Settlements = attrs.field(factory=Settlements, init=False)
    _consumers: set[Consumer] = attrs.field(factory=set[Consumer], init=False)

    @override
    async def declare(self, topology: Topology) -> None:
        await self._catalog.declare(topology)

    @override
    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return self._subscribe(subscription)

    @asynccontextmanager
    async def _subscribe(self, subscription: Subscription) -> AsyncGenerator[AsyncIterator[Delivery]]:
        if subscription.prefetch < 1:
            raise ValueError(f"prefetch must be 1 or more, not {subscription.prefetch}")
        queue = self._catalog.queue(subscription.queue)
        exclusive = queue is not None and queue.exclusive
        if exclusive:
            self._catalog.take_exclusively(subscription.queue)
        try:
            consumer = await self._join(subscription)
            self._consumers.add(consumer)
            try:
                yield consumer
            finally:
                with trio.move_on_after(_LEAVE_TIMEOUT, shield=True):
                    await consumer.leave()
                self._consumers.discard(consumer)
        finally:
            if exclusive:
                self._catalog.forget(subscription.queue)

    @override
    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        if mandatory and self._directory is not None and envelope.delay <= 0:
            await self._directory.check_route(exchange, envelope.subject)
        await self._post.send(envelope, exchange=exchange, mandatory=mandatory, delay=envelope.delay)

    async def aclose(self) -> None:
        """End all subscriptions, and wait for the answers to what was sent for their deliveries.

        Cancellation: Shielded for at most 2 s.
        """
        for consumer in self._consumers:
            consumer.end(lambda: UnavailableError("the connection to the broker is closed"))
        await self._settlements.aclose()

    async def _join(self, subscription: Subscription) -> Consumer:
        while True:
            wire = await self._consuming.wire()
            queue = self._catalog.queue(subscription.queue)
            in_flight = InFlight(
                subscription,
                queue,
                self._addresses,
                self._post,
                self._start,
                self._spared,
                self._settlements,
            )
            consumer = Consumer(subscription, self._addresses, self._post, wire.engine, in_flight)
            try:
                await consumer.open(self._catalog.sources(subscription.queue))
            except LinkLostError:
                await trio.lowlevel.checkpoint()
            else:
                return consumer
