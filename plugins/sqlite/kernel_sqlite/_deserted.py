"""Queues that are bound and that nobody consumes: they fill, and at their bound every send to them fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from typing import Final, final

import attrs

from ._store import Store

# Not among the tables that a file is made with: files of earlier versions get it when it is needed.
_TABLE: Final = "CREATE TABLE IF NOT EXISTS kernel_consumed (queue INTEGER PRIMARY KEY, at REAL NOT NULL)"


@final
@attrs.frozen(kw_only=True)
class Deserted:
    """A queue that is bound and that no process has consumed for long."""

    queue: str
    seconds: float
    """Since somebody was last seen to consume it; if nobody ever was, since the queue was first looked at."""
    waiting: int
    limit: int


def note(store: Store, names: Collection[str]) -> None:
    """Note that queues are being consumed; those that are gone are left out."""
    found = [queue.id for name in names if (queue := store.shelves.catalog.find(name)) is not None]
    if found:
        connection, now = _with_table(store), store.clock()
        connection.executemany("INSERT OR REPLACE INTO kernel_consumed VALUES (?, ?)", [(one, now) for one in found])


def look(store: Store, *, consumed: Collection[str], after: float) -> list[Deserted]:
    """Note what is being consumed, and return the bound queues that nobody has consumed for `after` seconds."""
    note(store, consumed)
    connection, now = _with_table(store), store.clock()
    for statement, parameters in (
        ("DELETE FROM kernel_consumed WHERE queue NOT IN (SELECT id FROM kernel_queue)", ()),
        ("INSERT OR IGNORE INTO kernel_consumed SELECT queue, ? FROM kernel_binding", (now,)),
        ("UPDATE kernel_consumed SET at = ? WHERE at > ?", (now, now)),  # the clock was set back
    ):
        connection.execute(statement, parameters)
    rows = connection.execute(
        "SELECT queue, at FROM kernel_consumed WHERE at <= ? AND queue IN (SELECT queue FROM kernel_binding)",
        (now - after,),
    ).fetchall()
    catalog = store.shelves.catalog
    queues = [(queue, now - at) for number, at in rows if (queue := catalog.by_id(number)) is not None]
    return [
        Deserted(queue=queue.spec.name, seconds=seconds, waiting=catalog.waiting(queue), limit=queue.limit)
        for queue, seconds in queues
    ]


def last_consumed(connection: sqlite3.Connection) -> Mapping[int, float]:
    """Return when each queue was last seen to be consumed, in seconds since 1970, by its number."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'kernel_consumed'").fetchone():
        return {}
    return dict(connection.execute("SELECT queue, at FROM kernel_consumed").fetchall())


def _with_table(store: Store) -> sqlite3.Connection:
    store.shelves.connection.execute(_TABLE)
    return store.shelves.connection
