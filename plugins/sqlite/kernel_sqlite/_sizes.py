"""Bounds of queues in bytes. Where a queue has one, the file itself counts what waits, whoever changes it.

Only files in which a queue was ever declared with such a bound have the table and its triggers; others pay nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final, final

import attrs

from ._schema import CLAIMED

_SIZE: Final = "(SELECT length(body) FROM kernel_content WHERE seq = OLD.seq)"
_LESS: Final = (
    f"UPDATE kernel_size SET bytes = bytes - coalesce({_SIZE}, 0) WHERE queue = OLD.queue AND OLD.state <> {CLAIMED}"
)
_MORE: Final = (
    f"UPDATE kernel_size SET bytes = bytes + coalesce({_SIZE}, 0) WHERE queue = NEW.queue AND NEW.state <> {CLAIMED}"
)
_WAITS: Final = f"SELECT queue FROM kernel_entry WHERE seq = NEW.seq AND state <> {CLAIMED}"
_MOVED: Final = f"OLD.queue <> NEW.queue OR (OLD.state = {CLAIMED}) <> (NEW.state = {CLAIMED})"
_TABLES: Final = (
    """
CREATE TABLE IF NOT EXISTS kernel_size (queue INTEGER PRIMARY KEY, most INTEGER NOT NULL, bytes INTEGER NOT NULL)
""",
    f"""
CREATE TRIGGER IF NOT EXISTS kernel_size_added AFTER INSERT ON kernel_content BEGIN
    UPDATE kernel_size SET bytes = bytes + length(NEW.body) WHERE queue = ({_WAITS});
END
""",
    f"""
CREATE TRIGGER IF NOT EXISTS kernel_size_removed BEFORE DELETE ON kernel_entry BEGIN {_LESS}; END
""",
    f"""
CREATE TRIGGER IF NOT EXISTS kernel_size_changed AFTER UPDATE OF queue, state ON kernel_entry WHEN {_MOVED} BEGIN
    {_LESS};
    {_MORE};
END
""",
)
"""An entry is written before its content, and removed before it; in queues that have no such bound, it may be later."""
_COUNT: Final = (
    "SELECT coalesce(sum(length(c.body)), 0) FROM kernel_entry AS e JOIN kernel_content AS c ON c.seq = e.seq"
    f" WHERE e.queue = ? AND e.state <> {CLAIMED}"
)


@final
@attrs.frozen(kw_only=True)
class SqliteOptions:
    """The table `options` of a consumer: what only this broker knows of a queue."""

    max_length_bytes: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.ge(1))
    )
    """Bytes of the bodies that wait, at most; `overflow` says what becomes of what is above it."""


@final
@attrs.frozen(eq=False, repr=False)
class Sizes:
    """The bounds of one file, inside a transaction of somebody else."""

    _connection: sqlite3.Connection

    def bounds(self) -> Mapping[int, int]:
        """Return the bounds by the numbers of their queues."""
        if not self._is_there():
            return {}
        return dict(self._connection.execute("SELECT queue, most FROM kernel_size").fetchall())

    def bytes_in(self, queue: int) -> int:
        """Return how many bytes wait in a queue that has a bound; what was gathered must have been written."""
        row = self._connection.execute("SELECT bytes FROM kernel_size WHERE queue = ?", (queue,)).fetchone()
        return int(row[0])

    def bound(self, queue: int, most: int | None) -> None:
        """Give a queue a bound, or none."""
        if most is None:
            if self._is_there():
                self._connection.execute("DELETE FROM kernel_size WHERE queue = ?", (queue,))
            return
        for statement in _TABLES:
            self._connection.execute(statement)
        (count,) = self._connection.execute(_COUNT, (queue,)).fetchone()
        self._connection.execute("INSERT OR REPLACE INTO kernel_size VALUES (?, ?, ?)", (queue, most, count))

    def _is_there(self) -> bool:
        found = self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'kernel_size'").fetchone()
        return found is not None


def bytes_of(options: object) -> int | None:
    """Return the bound that `Queue.options` names."""
    return options.max_length_bytes if isinstance(options, SqliteOptions) else None
