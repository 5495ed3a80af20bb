"""Exchanges, queues and bindings: read once, and again only when another process changed them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final, final

import attrs

from kernel import pattern_matches
from kernel.abc import Binding, Exchange, Queue, Topology
from kernel.errors import ConflictError, UnroutableError

from ._sizes import Sizes, SqliteOptions, bytes_of

_REMEMBERED: Final = 1024
"""Subjects whose queues are remembered; then all are forgotten, so that made-up subjects cannot fill the memory."""


@final
@attrs.define(eq=False)
class StoredQueue:
    """A queue and how many messages wait in it."""

    id: int
    spec: Queue
    limit: int
    owner: int | None
    most_bytes: int | None = None
    """Bytes of the bodies that wait, at most."""
    waiting: int | None = None
    """Entries that nobody has taken; None until it is asked for."""
    is_plain: bool = attrs.field(init=False)
    """Whether it takes what comes as it is, as long as its bound in messages allows."""

    def __attrs_post_init__(self) -> None:
        spec = self.spec
        has_rules = spec.partition_by or spec.deduplication_window or spec.ttl is not None
        self.is_plain = not has_rules and self.most_bytes is None


@final
@attrs.define(eq=False, repr=False)
class Catalog:
    """The topology of one file, inside a transaction of somebody else."""

    _connection: sqlite3.Connection
    _max_length: int
    sizes: Sizes = attrs.field(init=False, default=attrs.Factory(lambda self: Sizes(self._connection), takes_self=True))
    version: int = attrs.field(default=-1, init=False)
    """Of the topology that is in memory."""
    _exchanges: dict[str, Exchange] = attrs.field(factory=dict[str, Exchange], init=False)
    _changed_counts: set[StoredQueue] = attrs.field(factory=set[StoredQueue], init=False)
    _by_name: dict[str, StoredQueue] = attrs.field(factory=dict[str, StoredQueue], init=False)
    _by_id: dict[int, StoredQueue] = attrs.field(factory=dict[int, StoredQueue], init=False)
    _bindings: dict[str, list[tuple[str, int]]] = attrs.field(factory=dict[str, list[tuple[str, int]]], init=False)
    _routes: dict[tuple[str, str], list[StoredQueue]] = attrs.field(
        factory=dict[tuple[str, str], list[StoredQueue]], init=False
    )

    @property
    def queues(self) -> Iterable[StoredQueue]:
        """All queues."""
        return self._by_name.values()

    def refresh(self, version: int) -> None:
        """Take note that another process wrote: counts are read again, and all the rest if the version says so."""
        if version != self.version:
            self._load()
            self.version = version
        self._changed_counts.clear()
        for queue in self.queues:
            queue.waiting = None

    def find(self, name: str) -> StoredQueue | None:
        """Return a queue by its name."""
        return self._by_name.get(name)

    def need(self, name: str) -> StoredQueue:
        """Return a queue by its name.

        Raises:
            ConflictError: if there is none.
        """
        queue = self._by_name.get(name)
        if queue is None:
            raise ConflictError(f'there is no queue "{name}"')
        return queue

    def by_id(self, number: int) -> StoredQueue | None:
        """Return a queue by its number; None if it is gone."""
        return self._by_id.get(number)

    def route(self, subject: str, exchange: str) -> list[StoredQueue]:
        """Return the queues that get a copy: each once, however many of its bindings match.

        Raises:
            UnroutableError: if there is no such exchange.
        """
        if not exchange:
            return [self._by_name[subject]] if subject in self._by_name else []
        queues = self._routes.get((exchange, subject))
        if queues is None:
            if exchange not in self._exchanges:
                raise UnroutableError(f'there is no exchange "{exchange}" to send "{subject}" to')
            if len(self._routes) >= _REMEMBERED:
                self._routes.clear()
            matching = (queue for pattern, queue in self._bindings[exchange] if pattern_matches(pattern, subject))
            queues = self._routes[exchange, subject] = [self._by_id[number] for number in dict.fromkeys(matching)]
        return queues

    # --- counts ---------------------------------------------------------------------------------------------------

    def waiting(self, queue: StoredQueue) -> int:
        """Return how many messages wait in a queue."""
        if queue.waiting is None:
            row = self._connection.execute("SELECT waiting FROM kernel_queue WHERE id = ?", (queue.id,)).fetchone()
            queue.waiting = int(row[0])
        return queue.waiting

    def takes_one(self, queue: StoredQueue) -> bool:
        """Count one more message that came to wait, if there is room for it; return whether there is."""
        waiting = self.waiting(queue) if queue.waiting is None else queue.waiting
        if waiting >= queue.limit:
            return False
        queue.waiting = waiting + 1
        self._changed_counts.add(queue)
        return True

    def shift(self, queue: StoredQueue, by: int) -> None:
        """Count messages that came to wait, or that wait no more."""
        queue.waiting = self.waiting(queue) + by
        self._changed_counts.add(queue)

    def flush(self) -> None:
        """Write the counts that changed."""
        for queue in self._changed_counts:
            self._connection.execute("UPDATE kernel_queue SET waiting = ? WHERE id = ?", (queue.waiting, queue.id))
        self._changed_counts.clear()

    # --- changes --------------------------------------------------------------------------------------------------

    def declare(self, topology: Topology, *, owner: int | None) -> None:
        """Make a topology exist: all of it, or nothing if any part is refused.

        Args:
            topology: What must exist.
            owner: Whose the exclusive queues are.

        Raises:
            ConflictError: naming what is refused, and why.
        """
        exchanges = {spec.name: spec for spec in topology.exchanges if self._is_new_exchange(spec)}
        queues = {spec.name: spec for spec in map(_normal, topology.queues) if self._is_new_queue(spec)}
        self._check(topology, {*self._exchanges, *exchanges}, {*self._by_name, *queues})
        for exchange in exchanges.values():
            self._connection.execute("INSERT INTO kernel_exchange VALUES (?, ?)", (exchange.name, exchange.durable))
        for queue in queues.values():
            self._insert_queue(queue, owner)
        missing = [one for one in topology.bindings if queues or exchanges or not self._is_bound(one)]
        if exchanges or queues or missing:
            self._bind(missing)
            self._changed()

    def remove(self, queue: StoredQueue) -> None:
        """Remove a queue and what is in it."""
        for statement in (
            "DELETE FROM kernel_content WHERE seq IN (SELECT seq FROM kernel_entry WHERE queue = ?)",
            "DELETE FROM kernel_entry WHERE queue = ?",
            "DELETE FROM kernel_binding WHERE queue = ?",
            "DELETE FROM kernel_lane WHERE queue = ?",
            "DELETE FROM kernel_seen WHERE queue = ?",
            "DELETE FROM kernel_queue WHERE id = ?",
        ):
            self._connection.execute(statement, (queue.id,))
        self.sizes.bound(queue.id, None)
        self._changed()

    def replace(self, queue: StoredQueue, spec: Queue) -> None:
        """Declare a queue anew, under its name; what is in it stays."""
        spec = _normal(spec)
        self._connection.execute(
            "UPDATE kernel_queue SET durable = ?, max_length = ?, overflow = ?, ttl = ?, dead_letters = ?,"
            " deduplication_window = ? WHERE id = ?",
            (
                spec.durable,
                spec.max_length,
                spec.overflow,
                spec.ttl,
                spec.dead_letters,
                spec.deduplication_window,
                queue.id,
            ),
        )
        self.sizes.bound(queue.id, bytes_of(spec.options))
        self._changed()

    def bindings_of(self, queue: StoredQueue) -> list[tuple[str, str]]:
        """Return (exchange, pattern) of each binding of a queue."""
        return [
            (exchange, pattern)
            for exchange, bound in self._bindings.items()
            for pattern, number in bound
            if number == queue.id
        ]

    def unbind(self, queue: StoredQueue, exchange: str, pattern: str) -> None:
        """Remove a binding."""
        self._connection.execute(
            "DELETE FROM kernel_binding WHERE queue = ? AND exchange = ? AND pattern = ?", (queue.id, exchange, pattern)
        )
        self._changed()

    def _changed(self) -> None:
        self.flush()
        self._connection.execute("UPDATE kernel_meta SET topology = topology + 1")
        self._load()
        self.version += 1

    def _load(self) -> None:
        rows = self._connection.execute(
            "SELECT id, name, durable, exclusive, max_length, overflow, ttl, dead_letters, partition_by,"
            " deduplication_window, owner, waiting FROM kernel_queue ORDER BY id"
        ).fetchall()
        bounds = self.sizes.bounds()
        self._by_id = {row[0]: self._stored(row, bounds.get(row[0])) for row in rows}
        self._by_name = {queue.spec.name: queue for queue in self._by_id.values()}
        exchanges = self._connection.execute("SELECT name, durable FROM kernel_exchange").fetchall()
        self._exchanges = {name: Exchange(name=name, durable=bool(durable)) for name, durable in exchanges}
        self._bindings = {name: [] for name in self._exchanges}
        for exchange, pattern, queue in self._connection.execute(
            "SELECT exchange, pattern, queue FROM kernel_binding ORDER BY queue"
        ).fetchall():
            self._bindings[exchange].append((pattern, queue))
        self._routes.clear()

    def _stored(self, row: tuple[object, ...], most_bytes: int | None) -> StoredQueue:
        number, name, durable, exclusive, max_length, overflow, ttl, dead_letters, key, window, owner, waiting = row
        spec = Queue(
            name=str(name),
            durable=bool(durable),
            exclusive=bool(exclusive),
            max_length=max_length if isinstance(max_length, int) else None,
            overflow=str(overflow),
            ttl=ttl if isinstance(ttl, float) else None,
            dead_letters=str(dead_letters),
            partition_by=str(key),
            deduplication_window=window if isinstance(window, float) else 0.0,
            options=None if most_bytes is None else SqliteOptions(max_length_bytes=most_bytes),
        )
        limit = self._max_length if spec.max_length is None else spec.max_length
        assert isinstance(number, int)
        assert isinstance(waiting, int)
        return StoredQueue(number, spec, limit, owner if isinstance(owner, int) else None, most_bytes, waiting)

    def _insert_queue(self, spec: Queue, owner: int | None) -> None:
        done = self._connection.execute(
            "INSERT INTO kernel_queue"
            " (name, durable, exclusive, max_length, overflow, ttl, dead_letters, partition_by, deduplication_window, owner,"
            " waiting) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            (
                spec.name,
                spec.durable,
                spec.exclusive,
                spec.max_length,
                spec.overflow,
                spec.ttl,
                spec.dead_letters,
                spec.partition_by,
                spec.deduplication_window,
                owner if spec.exclusive else None,
            ),
        )
        if (most := bytes_of(spec.options)) is not None:
            assert done.lastrowid is not None
            self.sizes.bound(done.lastrowid, most)

    def _bind(self, bindings: Iterable[Binding]) -> None:
        for binding in bindings:
            self._connection.execute(
                "INSERT OR IGNORE INTO kernel_binding SELECT ?, ?, id FROM kernel_queue WHERE name = ?",
                (binding.exchange, binding.pattern, binding.queue),
            )

    def _is_bound(self, binding: Binding) -> bool:
        return (binding.pattern, self._by_name[binding.queue].id) in self._bindings[binding.exchange]

    def _is_new_exchange(self, spec: Exchange) -> bool:
        existing = self._exchanges.get(spec.name)
        if existing is not None:
            _compare("exchange", spec, existing)
        return existing is None

    def _is_new_queue(self, spec: Queue) -> bool:
        existing = self._by_name.get(spec.name)
        if existing is not None:
            _compare("queue", spec, existing.spec)
        return existing is None

    @staticmethod
    def _check(topology: Topology, exchanges: set[str], queues: set[str]) -> None:
        for spec in topology.queues:
            if spec.dead_letters and spec.dead_letters not in queues:
                raise ConflictError(
                    f'queue "{spec.name}" puts its dead letters into queue "{spec.dead_letters}", which nobody declared'
                )
        for binding in topology.bindings:
            if binding.exchange not in exchanges:
                raise ConflictError(f'there is no exchange "{binding.exchange}" to bind queue "{binding.queue}" to')
            if binding.queue not in queues:
                raise ConflictError(f'there is no queue "{binding.queue}" to bind to exchange "{binding.exchange}"')


def _normal(spec: Queue) -> Queue:
    """Return a queue as it is stored: with seconds that are no integers, and no options that say nothing."""
    ttl = None if spec.ttl is None else float(spec.ttl)
    options = None if bytes_of(spec.options) is None else spec.options
    return attrs.evolve(spec, ttl=ttl, deduplication_window=float(spec.deduplication_window), options=options)


def _compare(kind: str, wanted: Exchange | Queue, existing: Exchange | Queue) -> None:
    for field in attrs.fields(type(wanted)):
        asked, found = getattr(wanted, field.name), getattr(existing, field.name)
        name = field.name
        if name == "options":
            asked, found, name = bytes_of(asked), bytes_of(found), "options.max_length_bytes"
        if asked != found:
            raise ConflictError(
                f'{kind} "{wanted.name}" was declared with {name} = {found!r}, and is asked for with {asked!r}'
                f"{'; `kernel queue alter` changes it' if kind == 'queue' else ''}"
            )
