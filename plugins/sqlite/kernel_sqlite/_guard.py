"""Keeps the statements of workers off the broker's tables and transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, final

import attrs

from ._schema import PREFIX

GUEST_MARK: Final = "/* of a worker */ "
"""Stands before every statement of a guest: one of the same text as ours would be prepared already, and not judged."""
_READS: Final = frozenset({
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
})
_NEVER: Final = frozenset({
    sqlite3.SQLITE_ATTACH,
    sqlite3.SQLITE_DETACH,
    sqlite3.SQLITE_PRAGMA,
    sqlite3.SQLITE_SAVEPOINT,
    sqlite3.SQLITE_TRANSACTION,
})


@final
@attrs.define(eq=False)
class Guard:
    """Asked by SQLite for every part of a statement that it prepares."""

    _has_guest: bool = attrs.field(default=False, init=False)

    def watch(self, connection: sqlite3.Connection) -> None:
        """Have a connection ask."""
        connection.set_authorizer(self._judge)

    @contextmanager
    def guest(self) -> Generator[None]:
        """Inside, statements are somebody else's: they may read everything and change what is not the broker's."""
        self._has_guest = True
        try:
            yield
        finally:
            self._has_guest = False

    def _judge(self, action: int, one: str | None, two: str | None, _database: str | None, _inner: str | None) -> int:
        if not self._has_guest or action in _READS:
            return sqlite3.SQLITE_OK
        named = (one,) if action == sqlite3.SQLITE_UPDATE else (one, two)  # the second of UPDATE is a column
        names_ours = any(name is not None and name.lower().startswith(PREFIX) for name in named)
        return sqlite3.SQLITE_DENY if action in _NEVER or names_ours else sqlite3.SQLITE_OK
