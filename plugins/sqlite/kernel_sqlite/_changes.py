"""What people change about queues that exist: their bounds, their bindings, and whether they are there at all."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs

from kernel.abc import Queue
from kernel.errors import ConflictError

from ._schema import CLAIMED
from ._sizes import SqliteOptions
from ._store import Store


def delete(store: Store, name: str, *, only_if_empty: bool) -> int:
    """Remove a queue with its bindings and what waits in it; returns how many messages that were.

    Raises:
        ConflictError: if there is no such queue, if it is not empty and must be, if messages of it are under way, or
            if another queue puts its dead letters into it.
    """
    catalog = store.shelves.catalog
    queue = catalog.need(name)
    waiting = catalog.waiting(queue)
    if only_if_empty and waiting:
        raise ConflictError(f'queue "{name}" is not empty: {waiting} messages wait in it')
    row = store.shelves.connection.execute(
        f"SELECT count(*) FROM kernel_entry WHERE queue = ? AND state = {CLAIMED}", (queue.id,)
    ).fetchone()
    if row[0]:
        raise ConflictError(f'queue "{name}" is in use: {row[0]} of its messages are under way')
    users = [other.spec.name for other in catalog.queues if other.spec.dead_letters == name and other is not queue]
    if users:
        raise ConflictError(f'queue "{users[0]}" puts its dead letters into queue "{name}": delete or alter that first')
    catalog.remove(queue)
    return waiting


def bindings(store: Store, name: str) -> list[tuple[str, str]]:
    """Return (exchange, pattern) of each binding of a queue.

    Raises:
        ConflictError: if there is no such queue.
    """
    return store.shelves.catalog.bindings_of(store.shelves.catalog.need(name))


def unbind(store: Store, name: str, exchange: str, pattern: str) -> None:
    """Remove a binding; what came by it stays.

    Raises:
        ConflictError: if there is no such queue or binding.
    """
    queue = store.shelves.catalog.need(name)
    found = store.shelves.catalog.bindings_of(queue)
    if (exchange, pattern) not in found:
        there = ", ".join(f"{one} {other}" for one, other in found) or "none"
        raise ConflictError(f'queue "{name}" is not bound to exchange "{exchange}" with {pattern}; it has: {there}')
    store.shelves.catalog.unbind(queue, exchange, pattern)


def alter(store: Store, name: str, changes: Mapping[str, Any]) -> Queue:
    """Change how a queue was declared; returns how it is declared then. What waits keeps the time it has.

    Raises:
        ConflictError: if there is no such queue, or no such queue for its dead letters.
        ValueError: if a value is out of range.
    """
    catalog = store.shelves.catalog
    queue = catalog.need(name)
    options = {key: value for key, value in changes.items() if key == "max_length_bytes"}
    spec = attrs.evolve(queue.spec, **{key: value for key, value in changes.items() if key not in options})
    if options:
        spec = attrs.evolve(spec, options=SqliteOptions(**options))
    if spec.max_length is not None and spec.max_length < 1:
        raise ValueError(f"max_length must be 1 or more, not {spec.max_length}")
    if spec.ttl is not None and not spec.ttl > 0:
        raise ValueError(f"ttl must be above 0, not {spec.ttl:g}")
    if spec.dead_letters:
        catalog.need(spec.dead_letters)
    if spec.dead_letters == name:
        raise ConflictError(f'queue "{name}" cannot take its own dead letters: they would come again for ever')
    catalog.replace(queue, spec)
    return spec


def vacuum(connection: sqlite3.Connection) -> None:
    """Write the file anew without the space that nothing takes any more.

    Raises:
        sqlite3.OperationalError: if others use it for too long, or there is no room for the copy.
    """
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def backup(connection: sqlite3.Connection, target: Path) -> None:
    """Copy the file as it is at one moment, with what is in its log, while others use it.

    Raises:
        OSError: if there is such a file already, or it cannot be made.
        sqlite3.Error: if there is no room.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with closing(sqlite3.connect(target)) as copy:
            connection.backup(copy)
    except BaseException:
        target.unlink()
        raise
