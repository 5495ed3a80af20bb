"""What this service has declared, by name: to tell what disagrees, and to declare it again on a new connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

import attrs

from kernel.abc import Binding, Exchange, Queue, Topology
from kernel.errors import ConflictError


@final
@attrs.define(eq=False, repr=False)
class Catalog:
    """Exchanges, queues and bindings that this service has asked for; as many as the manifest has names."""

    _exchanges: dict[str, Exchange] = attrs.field(factory=dict[str, Exchange], init=False)
    _queues: dict[str, Queue] = attrs.field(factory=dict[str, Queue], init=False)
    _bindings: dict[Binding, None] = attrs.field(factory=dict[Binding, None], init=False)

    def queue(self, name: str) -> Queue | None:
        """Return what was declared under a name; None for a queue that somebody else declares."""
        return self._queues.get(name)

    def bindings(self, queue: str) -> list[Binding]:
        """Return the bindings of a queue."""
        return [binding for binding in self._bindings if binding.queue == queue]

    def forget(self, name: str) -> None:
        """Forget a queue that has gone away, and its bindings."""
        if self._queues.pop(name, None) is not None:
            self._bindings = {binding: None for binding in self._bindings if binding.queue != name}

    def check(self, topology: Topology) -> None:
        """Raise ConflictError for what disagrees with what was declared before, or with itself."""
        for exchange in topology.exchanges:
            _check_same("exchange", exchange, self._exchanges.get(exchange.name))
        for queue in topology.queues:
            self._check_queue(queue)
        known = {*self._queues, *(queue.name for queue in topology.queues)}
        for queue in topology.queues:
            if queue.dead_letters and queue.dead_letters not in known:
                raise ConflictError(
                    f'queue "{queue.name}" puts its dead letters into queue "{queue.dead_letters}", which nobody declared'
                )

    def add(self, topology: Topology) -> None:
        """Remember what was declared."""
        self._exchanges |= {exchange.name: exchange for exchange in topology.exchanges}
        for queue in topology.queues:
            if not (_says_nothing(queue) and queue.name in self._queues):
                self._queues[queue.name] = queue
        self._bindings |= dict.fromkeys(topology.bindings)

    def resolved(self, queues: Iterable[Queue]) -> list[Queue]:
        """Return queues as they are to be declared: one of which no more than the name is said, as it was before."""
        return [self._queues.get(queue.name, queue) if _says_nothing(queue) else queue for queue in queues]

    def all(self) -> Topology:
        """Return what was declared, but for what lives as long as one connection."""
        kept = [queue for queue in self._queues.values() if not queue.exclusive]
        names = {queue.name for queue in kept}
        bindings = [binding for binding in self._bindings if binding.queue in names]
        return Topology(exchanges=list(self._exchanges.values()), queues=kept, bindings=bindings)

    def _check_queue(self, queue: Queue) -> None:
        known = self._queues.get(queue.name)
        if known is None:
            return
        if _says_nothing(queue) or _says_nothing(known):
            known = attrs.evolve(queue, durable=known.durable)
        _check_same("queue", queue, known)


def _says_nothing(queue: Queue) -> bool:
    """Whether a queue is asked for by its name alone, as one for dead letters is: whoever declares it says the rest."""
    return queue == Queue(name=queue.name, durable=queue.durable)


def _check_same(kind: str, new: Exchange | Queue, known: Exchange | Queue | None) -> None:
    if known is None or known == new:
        return
    for field in attrs.fields(type(new)):
        asked, has = getattr(new, field.name), getattr(known, field.name)
        if asked != has:
            raise ConflictError(
                f'{kind} "{new.name}" was declared with {field.name} = {has}, and is asked for with {field.name} = {asked}'
            )
