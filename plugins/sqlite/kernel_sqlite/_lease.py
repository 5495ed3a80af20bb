"""Leases: a row each, written over the version that was read in a transaction that nobody else writes in."""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import Final, final

import attrs
from typing_extensions import override

from kernel.abc import Lease, LeaseState

from ._store import Store
from ._thread import StoreThread

# Not among the tables that a file is made with: files of earlier versions get it when it is needed.
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS kernel_lease"
    " (name TEXT PRIMARY KEY, version INTEGER NOT NULL, value TEXT NOT NULL) WITHOUT ROWID"
)


@final
@attrs.frozen(eq=False, repr=False)
class SqliteLease(Lease):
    """A row of the file."""

    _thread: StoreThread
    _name: str

    @override
    async def read(self) -> LeaseState:
        version, value = await self._thread.perform(partial(_read, name=self._name))
        return LeaseState(version=version, value=value, now=self._thread.clock.wall())

    @override
    async def write(self, value: str, *, after: int) -> bool:
        return await self._thread.perform(partial(_write, name=self._name, value=value, after=after))


def _read(store: Store, *, name: str) -> tuple[int, str]:
    connection = _with_table(store)
    row = connection.execute("SELECT version, value FROM kernel_lease WHERE name = ?", (name,)).fetchone()
    return (0, "") if row is None else row


def _write(store: Store, *, name: str, value: str, after: int) -> bool:
    connection = _with_table(store)
    statement = "UPDATE kernel_lease SET version = version + 1, value = ? WHERE name = ? AND version = ?"
    if not after:
        statement = "INSERT OR IGNORE INTO kernel_lease (value, name, version) VALUES (?, ?, ? + 1)"
    return connection.execute(statement, (value, name, after)).rowcount == 1


def _with_table(store: Store) -> sqlite3.Connection:
    store.shelves.connection.execute(_TABLE)
    return store.shelves.connection
