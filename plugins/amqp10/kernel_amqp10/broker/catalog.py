"""What was declared: through the HTTP API where there is one, and remembered where the broker makes it by itself."""

from __future__ import annotations

from typing import final

import attrs
import trio

from kernel.abc import Binding, Exchange, Queue, Topology
from kernel.errors import ConflictError

from .._addresses import Addresses
from ..management.directory import Directory


@final
@attrs.define(eq=False, repr=False)
class Catalog:
    """The topology of this service."""

    _addresses: Addresses
    _directory: Directory | None
    _exchanges: dict[str, Exchange] = attrs.field(factory=dict[str, Exchange], init=False)
    _queues: dict[str, Queue] = attrs.field(factory=dict[str, Queue], init=False)
    _bindings: dict[Binding, None] = attrs.field(factory=dict[Binding, None], init=False)
    _consumed: set[str] = attrs.field(factory=set[str], init=False)
    """Exclusive queues that have their consumer."""

    def queue(self, name: str) -> Queue | None:
        """Return how a queue was declared; None if somebody else did."""
        return self._queues.get(name)

    def sources(self, name: str) -> tuple[str, ...]:
        """Return the addresses that a queue is consumed from."""
        bound = tuple((known.exchange, known.pattern) for known in self._bindings if known.queue == name)
        return self._addresses.sources(name, bound)

    async def declare(self, topology: Topology) -> None:
        """Make it exist; raises as `Broker.declare`.

        Cancellation: Is a checkpoint. If cancelled, any part of it may have been done.
        """
        await trio.lowlevel.checkpoint()
        for exchange in topology.exchanges:
            await self._exchange(exchange)
        for queue in topology.queues:
            await self._queue(queue)
        for binding in topology.bindings:
            await self._bind(binding)

    async def restore(self) -> None:
        """Make exist again what was declared; queues of one consumer are gone with it.

        Raises and Cancellation: as `declare`.
        """
        gone = {queue.name for queue in self._queues.values() if queue.exclusive}
        self._consumed.clear()
        for name in gone:
            self.forget(name)
        await self.declare(
            Topology(
                exchanges=list(self._exchanges.values()),
                queues=list(self._queues.values()),
                bindings=list(self._bindings),
            )
        )

    def forget(self, name: str) -> None:
        """Take note that a queue is gone."""
        self._queues.pop(name, None)
        self._bindings = {known: None for known in self._bindings if known.queue != name}
        self._consumed.discard(name)
        if self._directory is not None:
            self._directory.forget(name)

    def take_exclusively(self, name: str) -> None:
        """Take note of the consumer of an exclusive queue.

        Raises:
            ConflictError: if it has one.
        """
        if name in self._consumed:
            raise ConflictError(f'queue "{name}" is exclusive, and has its consumer')
        self._consumed.add(name)

    async def _exchange(self, exchange: Exchange) -> None:
        await trio.lowlevel.checkpoint()
        _check(f'exchange "{exchange.name}"', self._exchanges.get(exchange.name), exchange)
        if self._directory is not None:
            await self._directory.declare_exchange(exchange)
        self._exchanges[exchange.name] = exchange

    async def _queue(self, queue: Queue) -> None:
        await trio.lowlevel.checkpoint()
        _check(f'queue "{queue.name}"', self._queues.get(queue.name), queue)
        if self._directory is not None:
            await self._directory.declare_queue(queue)
        self._queues[queue.name] = queue

    async def _bind(self, binding: Binding) -> None:
        await trio.lowlevel.checkpoint()
        if self._directory is not None:
            await self._directory.bind(binding)
        self._bindings[binding] = None


def _check(what: str, known: Exchange | Queue | None, asked: Exchange | Queue) -> None:
    """Raise ConflictError, with the first value that differs, if something was declared here otherwise."""
    if known is None or known == asked:
        return
    for name, now in attrs.asdict(asked, recurse=False).items():
        before = getattr(known, name)
        if before != now:
            raise ConflictError(f"{what} was declared with {name} = {before!r}, and now with {now!r}")
