"""Exchanges and queues, and every way a message takes between them. All synchronous: each call is atomic."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import final

import attrs
import trio

from kernel import Envelope
from kernel.abc import Binding, Exchange, Queue, Topology, check_envelope, death_headers
from kernel.errors import ConflictError, EncodeError, QueueFullError, UnroutableError

from ._exchange import MemoryExchange
from ._ledger import Ledger
from ._queue import MemoryQueue
from ._seen import Seen
from ._timers import Timers
from ._waiting import Entry


@final
@attrs.define(eq=False, repr=False)
class Store:
    """What a broker holds."""

    max_length: int
    """Bound of queues that name none."""
    deduplication_limit: int
    """Bound of the ids that a queue remembers."""
    ledger: Ledger
    closed: bool = attrs.field(default=False, init=False)
    timers: Timers = attrs.field(factory=Timers, init=False)
    _exchanges: dict[str, MemoryExchange] = attrs.field(factory=dict[str, MemoryExchange], init=False)
    _queues: dict[str, MemoryQueue] = attrs.field(factory=dict[str, MemoryQueue], init=False)

    def declare(self, topology: Topology) -> None:
        """Make a topology exist: all of it, or nothing if any part is refused."""
        exchanges = self._exchanges | {spec.name: MemoryExchange(spec) for spec in self._new_exchanges(topology)}
        queues = self._queues | {spec.name: self._new_queue(spec) for spec in self._new_queues(topology)}
        for spec in topology.queues:
            if spec.dead_letters and spec.dead_letters not in queues:
                raise ConflictError(
                    f'queue "{spec.name}" puts its dead letters into queue "{spec.dead_letters}", which nobody declared'
                )
        for binding in topology.bindings:
            _check_binding(binding, exchanges, queues)
        self._exchanges, self._queues = exchanges, queues
        for binding in topology.bindings:
            exchanges[binding.exchange].bind(binding.pattern, binding.queue)

    def queue(self, name: str) -> MemoryQueue:
        """Return a queue.

        Raises:
            ConflictError: if there is none of that name.
        """
        queue = self._queues.get(name)
        if queue is None:
            raise ConflictError(f'there is no queue "{name}"')
        return queue

    def remove(self, queue: MemoryQueue) -> None:
        """Remove a queue and what is in it."""
        queue.gone = True
        del self._queues[queue.spec.name]
        for exchange in self._exchanges.values():
            exchange.unbind(queue.spec.name)
        queue.clear()

    def retire(self, topology: Topology) -> list[str]:
        """Unbind what nobody asks for any more; return what waits where nobody reads it.

        A queue stays, with what waits in it: a manifest that names it again has that handled. One that is consumed all
        the same keeps its bindings, too.
        """
        queues = [queue for spec in topology.queues if (queue := self._queues.get(spec.name)) is not None]
        busy = {queue.spec.name for queue in queues if queue.consumers}
        for binding in topology.bindings:
            if binding.queue not in busy and binding.exchange in self._exchanges:
                self._exchanges[binding.exchange].unbind(binding.queue, binding.pattern)
        return [_unread(queue) for queue in queues if queue.spec.name not in busy and len(queue)]

    def close(self) -> dict[str, int]:
        """Remove everything; what was under way counts as returned. Return how many messages queues still held."""
        self.closed = True
        self.ledger.returned += self.ledger.snapshot().unsettled
        held = {name: len(queue) for name, queue in self._queues.items() if len(queue) and not queue.spec.exclusive}
        for queue in list(self._queues.values()):
            self.remove(queue)
        self._exchanges.clear()
        return held

    def send(self, envelope: Envelope, *, exchange: str, mandatory: bool) -> None:
        """Give every queue that is bound a copy, or none of them."""
        check_envelope(envelope)
        queues = self._route(envelope.subject, exchange)
        if mandatory and not queues:
            raise UnroutableError.naming(envelope.subject, exchange=exchange)
        queues = [queue for queue in queues if queue.seen is None or not self._is_known(envelope, queue, queue.seen)]
        if full := [queue for queue in queues if queue.is_full]:
            self._make_room(full)
        self.ledger.sent += len(queues)
        now = trio.current_time()
        for queue in queues:
            if queue.seen is not None:
                queue.seen.add(envelope.id)
            if envelope.delay > 0:
                queue.put_later(Entry(envelope, sent=now), envelope.delay)
            else:
                queue.put(Entry(envelope, sent=now))

    def reply(self, envelope: Envelope, exchange: str) -> None:
        """Send an answer; if its queue is gone or full, the answer is dropped, not the request."""
        try:
            self.send(envelope, exchange=exchange, mandatory=True)
        except (UnroutableError, QueueFullError, EncodeError, ValueError) as error:
            self.ledger.drop(envelope, queue=envelope.subject, reason=f"no way to answer: {error}")

    def bury(self, queue: MemoryQueue, entry: Entry, reason: str) -> None:
        """Put an entry that has left its queue into the dead letters.

        Dead letters are never refused: where they overflow, the oldest are dropped, with an event.
        """
        grave = self._queues.get(queue.spec.dead_letters)
        if grave is None:
            self.ledger.drop(entry.envelope, queue=queue.spec.name, reason=reason)
            return
        if grave.is_full and (oldest := grave.displace()) is not None:
            self.ledger.displaced += 1
            self.ledger.drop(oldest.envelope, queue=grave.spec.name, reason="overflow")
        headers = death_headers(entry.envelope, reason=reason, queue=queue.spec.name, attempts=entry.attempts)
        grave.put(Entry(attrs.evolve(entry.envelope, headers=headers, delay=0.0, deadline=math.inf)))

    def _is_known(self, envelope: Envelope, queue: MemoryQueue, seen: Seen) -> bool:
        if envelope.id not in seen:
            return False
        self.ledger.ignore(envelope, queue=queue.spec.name)
        return True

    def _expire(self, queue: MemoryQueue, entry: Entry) -> None:
        self.ledger.expired += 1
        self.bury(queue, entry, "expired")

    def _make_room(self, full: list[MemoryQueue]) -> None:
        for queue in full:
            if queue.spec.overflow == "refuse":
                raise QueueFullError(f'queue "{queue.spec.name}" is full: it holds {queue.limit} messages')
        for queue in full:
            if (oldest := queue.displace()) is not None:
                self.ledger.displaced += 1
                self.bury(queue, oldest, "overflow")

    def _route(self, subject: str, exchange: str) -> list[MemoryQueue]:
        if not exchange:
            return [self._queues[subject]] if subject in self._queues else []
        if exchange not in self._exchanges:
            raise UnroutableError(f'there is no exchange "{exchange}" to send "{subject}" to')
        return [self._queues[name] for name in self._exchanges[exchange].route(subject)]

    def _new_exchanges(self, topology: Topology) -> Iterable[Exchange]:
        for spec in topology.exchanges:
            existing = self._exchanges.get(spec.name)
            if existing is None:
                yield spec
            else:
                _compare("exchange", spec, existing.spec)

    def _new_queues(self, topology: Topology) -> Iterable[Queue]:
        for spec in topology.queues:
            existing = self._queues.get(spec.name)
            if existing is None:
                yield spec
            else:
                _compare("queue", spec, existing.spec)

    def _new_queue(self, spec: Queue) -> MemoryQueue:
        limit = self.max_length if spec.max_length is None else spec.max_length
        seen = Seen(spec.deduplication_window, self.deduplication_limit) if spec.deduplication_window else None
        return MemoryQueue(spec, limit, self.timers, self._expire, seen)


def _unread(queue: MemoryQueue) -> str:
    return (
        f'queue "{queue.spec.name}" is bound no more and nobody consumes it: {len(queue)} messages wait in it until the'
        " service ends; give it to a dispatcher again to have them handled"
    )


def _compare(kind: str, wanted: Exchange | Queue, existing: Exchange | Queue) -> None:
    for field in attrs.fields(type(wanted)):
        asked, found = getattr(wanted, field.name), getattr(existing, field.name)
        if asked != found:
            raise ConflictError(
                f'{kind} "{wanted.name}" was declared with {field.name} = {found!r}, and is asked for with {asked!r}:'
                " say the same wherever it is declared, or `declare = false` in all places but one, and start the service anew"
            )


def _check_binding(binding: Binding, exchanges: dict[str, MemoryExchange], queues: dict[str, MemoryQueue]) -> None:
    if binding.exchange not in exchanges:
        raise ConflictError(f'there is no exchange "{binding.exchange}" to bind queue "{binding.queue}" to')
    if binding.queue not in queues:
        raise ConflictError(f'there is no queue "{binding.queue}" to bind to exchange "{binding.exchange}"')
