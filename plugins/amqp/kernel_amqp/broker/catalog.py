"""What this service has declared, by name: to tell what disagrees, and to declare it again on a new connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import final

import attrs
import trio
from pamqp import commands
from structlog.typing import FilteringBoundLogger

from kernel.abc import Exchange, Queue, Topology
from kernel.errors import ConflictError

from .._config import AmqpConfig
from .._errors import LinkLostError
from .._tables import ExchangeTable, QueueTable
from ..link.link import Link
from .conflicts import check_same
from .declaring import (
    FatalStepError,
    Step,
    binding_step,
    exchange_step,
    exists,
    perform,
    perform_each,
    queue_look,
    queue_step,
)
from .topology import Bound, binding_of, bindings_of, check_order, graves_of, options_of, queue_of, says_nothing


@final
@attrs.define(eq=False, repr=False)
class Catalog:
    """Exchanges, queues and bindings that this service has asked for; as many as the manifest has names."""

    _config: AmqpConfig
    _component: str
    _log: FilteringBoundLogger
    _exchanges: dict[str, Exchange] = attrs.field(factory=dict[str, Exchange], init=False)
    _queues: dict[str, Queue] = attrs.field(factory=dict[str, Queue], init=False)
    _bindings: dict[Bound, None] = attrs.field(factory=dict[Bound, None], init=False)

    def queue(self, name: str) -> Queue | None:
        """Return what was declared under a name; None for a queue that somebody else declares."""
        return self._queues.get(name)

    def forget(self, name: str) -> None:
        """Forget a queue that has gone away, and its bindings."""
        if self._queues.pop(name, None) is not None:
            self._bindings = {bound: None for bound in self._bindings if bound.is_exchange or bound.destination != name}

    def forget_exclusive(self) -> None:
        """Forget the queues that went away with a connection."""
        for queue in list(self._queues.values()):
            if _is_exclusive(queue):
                self.forget(queue.name)

    async def declare_own(self, link: Link) -> None:
        """Make exist what the tables of the driver ask for.

        Raises and Cancellation: as `declare`.
        """
        exchanges = [Exchange(name=name, durable=table.durable) for name, table in self._config.exchanges.items()]
        queues = [queue_of(name, table) for name, table in self._config.queues.items()]
        bindings = [
            *_bindings(self._config.exchanges, is_exchange=True),
            *_bindings(self._config.queues, is_exchange=False),
        ]
        await self._declare(link, exchanges, queues, bindings)

    async def declare(self, link: Link, topology: Topology) -> None:
        """Make a topology exist and remember it.

        Raises:
            ConflictError: if something exists with other properties, or cannot be made.
            LinkLostError: if the connection is gone.

        Cancellation: Is a checkpoint. If cancelled, any part of it may have been done.
        """
        queues = self._resolve(topology)
        self._check(topology.exchanges, queues)
        await self._declare(link, topology.exchanges, queues, map(binding_of, topology.bindings))

    async def restore(self, link: Link) -> None:
        """Make exist again what did not go away with its connection; what cannot be is logged.

        Returns as well if the connection is lost meanwhile.
        """
        exclusive = {queue.name for queue in self._queues.values() if _is_exclusive(queue)}
        queues = [queue for queue in self._queues.values() if queue.name not in exclusive]
        bindings = [bound for bound in self._bindings if bound.is_exchange or bound.destination not in exclusive]
        try:
            for error in await perform_each(link, self._steps(self._exchanges.values(), queues, bindings)):
                self._log.error("what was declared before cannot be declared again", error=str(error))
        except FatalStepError as error:
            self._log.error("what was declared before is not declared again", error=str(error))
            self._forget_step(error.step)
        except LinkLostError:
            pass
        await trio.lowlevel.checkpoint()

    def _forget_step(self, step: Step) -> None:
        """Forget what the broker closes connections for, so that the next one lives."""
        if isinstance(step.method, (commands.Queue.Bind, commands.Exchange.Bind)):
            self._bindings = {bound: None for bound in self._bindings if dict(bound.method()) != dict(step.method)}
        elif step.kind == "queue":
            self.forget(step.name)
        else:
            self._exchanges.pop(step.name, None)

    async def _declare(
        self, link: Link, exchanges: Iterable[Exchange], queues: Iterable[Queue], bindings: Iterable[Bound]
    ) -> None:
        exchanges, queues, bindings = list(exchanges), list(queues), list(bindings)
        for queue in queues:
            check_order(queue, link.version)
        await self._check_dead_letters(link, queues)
        await perform(link, list(self._steps(exchanges, queues, bindings)))
        self._exchanges |= {exchange.name: exchange for exchange in exchanges}
        self._queues |= {queue.name: queue for queue in queues}
        self._bindings |= dict.fromkeys(bindings)

    def _steps(
        self, exchanges: Iterable[Exchange], queues: Iterable[Queue], bindings: Iterable[Bound]
    ) -> Iterator[Step]:
        for exchange in exchanges:
            yield exchange_step(exchange, self._config.exchanges.get(exchange.name))
        yield from map(queue_step, queues)
        yield from map(binding_step, bindings)

    def _check(self, exchanges: Iterable[Exchange], queues: Iterable[Queue]) -> None:
        for exchange in exchanges:
            if exchange.name in self._exchanges and exchange.name not in self._config.exchanges:
                check_same(exchange, self._exchanges[exchange.name])
        for queue in queues:
            if queue.name in self._queues:
                check_same(queue, self._queues[queue.name])

    def meant(self, topologies: Iterable[Topology]) -> list[Queue]:
        """Return the queues of the driver's tables and of topologies, as they would be declared; nothing is done."""
        queues = {name: queue_of(name, table) for name, table in self._config.queues.items()}
        for topology in topologies:
            for queue in self._resolve(topology):
                queues.setdefault(queue.name, queue)
        return list(queues.values())

    def _resolve(self, topology: Topology) -> list[Queue]:
        graves = graves_of(topology.queues)
        return [
            self._grave(graves[queue.name]) if queue.name in graves else self._tabled(queue)
            for queue in topology.queues
        ]

    def _grave(self, queue: Queue) -> Queue:
        """Return a queue for dead letters as somebody has declared it here already, or as it is meant."""
        if queue.name in self._config.queues:
            return queue_of(queue.name, self._config.queues[queue.name])
        return self._queues.get(queue.name, queue)

    def _tabled(self, queue: Queue) -> Queue:
        """Return a queue as its table in the manifest has it, if there is one."""
        table = self._config.queues.get(queue.name)
        if table is None:
            return queue
        if not says_nothing(queue):
            raise ConflictError(
                f'queue "{queue.name}" has a table `queues` at {self._component} and is declared by a component with'
                " properties of its own: remove the table, or set `declare = false` at the component"
            )
        return queue_of(queue.name, table)

    async def _check_dead_letters(  # noqa: ASYNC910  who calls it goes on to the broker
        self, link: Link, queues: list[Queue]
    ) -> None:
        """Raise ConflictError if dead letters would go nowhere."""
        known = {queue.name for queue in queues} | self._queues.keys()
        for queue in queues:
            if queue.dead_letters and queue.dead_letters not in known:
                if not await exists(link, queue_look(queue.dead_letters)):
                    raise ConflictError(
                        f'queue "{queue.name}" puts its dead letters into queue "{queue.dead_letters}", which nobody'
                        " declared"
                    )
                known.add(queue.dead_letters)


def _bindings(tables: Mapping[str, ExchangeTable] | Mapping[str, QueueTable], *, is_exchange: bool) -> list[Bound]:
    return [
        bound for name, table in tables.items() for bound in bindings_of(name, table.bindings, is_exchange=is_exchange)
    ]


def _is_exclusive(queue: Queue) -> bool:
    return queue.exclusive or options_of(queue).exclusive
