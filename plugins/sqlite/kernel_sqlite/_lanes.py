"""Ordering by key: who is first of its key, and who waits behind it.

The first is ready, taken, or waits for its retry; it is named in `kernel_lane`. The others of its key are `BEHIND`.
"""

from __future__ import annotations

import json
import sqlite3
from typing import NamedTuple, final

import attrs

from kernel import NO_HEADERS, Envelope
from kernel.abc import partition_key

from ._letter import Letter
from ._schema import BEHIND, READY


class Successor(NamedTuple):
    """Who is first of a key now."""

    seq: int
    attempts: int
    expires: float | None


@final
@attrs.define(eq=False, repr=False)
class Lanes:
    """The keys of all queues with `partition_by`, inside a transaction of somebody else."""

    _connection: sqlite3.Connection

    def admit(self, queue: int, key: str, seq: int) -> bool:
        """Return whether an entry is the first of its key, as it is if it was before; if not, it has to wait."""
        self._connection.execute("INSERT OR IGNORE INTO kernel_lane VALUES (?, ?, ?)", (queue, key, seq))
        (first,) = self._connection.execute(
            "SELECT first FROM kernel_lane WHERE queue = ? AND key = ?", (queue, key)
        ).fetchone()
        return bool(first == seq)

    def advance(self, queue: int, key: str, seq: int) -> Successor | None:
        """Take note that an entry has ended; if it was the first of its key, make the next one that, and ready."""
        row = self._connection.execute(
            "SELECT 1 FROM kernel_lane WHERE queue = ? AND key = ? AND first = ?", (queue, key, seq)
        ).fetchone()
        if row is None:
            return None
        following = self._connection.execute(
            "SELECT seq, attempts, expires FROM kernel_entry INDEXED BY kernel_entry_behind"
            f" WHERE queue = ? AND key = ? AND state = {BEHIND} ORDER BY place LIMIT 1",
            (queue, key),
        ).fetchone()
        if following is None:
            self._connection.execute("DELETE FROM kernel_lane WHERE queue = ? AND key = ?", (queue, key))
            return None
        self._connection.execute(
            "UPDATE kernel_lane SET first = ? WHERE queue = ? AND key = ?", (following[0], queue, key)
        )
        self._connection.execute(f"UPDATE kernel_entry SET state = {READY} WHERE seq = ?", (following[0],))
        return Successor(*following)


def key_of(letter: Letter, partition_by: str) -> str | None:
    """Return the key that orders a message; None if nothing does."""
    if not partition_by:
        return None
    headers = json.loads(letter.headers) if letter.headers else NO_HEADERS
    return partition_key(Envelope(subject=letter.subject, headers=headers, id=letter.id), partition_by)
