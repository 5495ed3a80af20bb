"""What time does to the file: delays and lives that end, and the leases of processes."""

from __future__ import annotations

import math
import sqlite3
from typing import Final, final

import attrs

from ._schema import BEHIND, CLAIMED, DELAYED, READY

_STEP: Final = 500
"""Rows of one kind in one go, so that nobody waits long for the transaction; the rest follows at once."""
_CLEANING: Final = 60.0
"""Seconds between two removals of ids that need not be remembered any more."""


@final
@attrs.define(eq=False, repr=False)
class Upkeep:
    """Knows when something is due, and finds it. Inside a transaction of somebody else.

    A process that claims messages or owns exclusive queues is a `holder`: one row with the end of its lease. Whoever
    finds that a lease has ended gives back what belonged to it. The number of a holder is never used again, so a
    claim that went to others is told from those that are still held.
    """

    _connection: sqlite3.Connection
    _lease: float
    holder: int | None = attrs.field(default=None, init=False)
    _until: float = attrs.field(default=0.0, init=False)
    _next: float | None = attrs.field(default=None, init=False)
    """When something is due; None until it is asked for."""
    _clean_at: float = attrs.field(default=0.0, init=False)

    def refresh(self) -> None:
        """Take note that another process wrote."""
        self._next = None
        if self.holder is None:
            return
        row = self._connection.execute("SELECT until FROM kernel_holder WHERE id = ?", (self.holder,)).fetchone()
        if row is None:
            self.holder = None
        else:
            self._until = row[0]

    def expect(self, when: float | None) -> None:
        """Take note that something is due at a time."""
        if when is not None and self._next is not None:
            self._next = min(self._next, when)

    def next_time(self) -> float:
        """Return when something is due; infinite if nothing is."""
        if self._next is None:
            self._next = min(self._find_next(), self._renewal, self._clean_at)
        return self._next

    # --- leases ---------------------------------------------------------------------------------------------------

    def hold(self, now: float) -> int:
        """Return the holder that we are; become one if we are none."""
        if self.holder is None:
            self._until = now + self._lease
            done = self._connection.execute("INSERT INTO kernel_holder (until) VALUES (?)", (self._until,))
            self.holder = done.lastrowid
            self._next = None
        assert self.holder is not None
        return self.holder

    def renew(self, now: float) -> None:
        """Renew our lease if a third of it is over; end it if it covers nothing."""
        self._next = None
        if self.holder is None or now < self._renewal:
            return
        if self._covers_something(self.holder):
            self._until = now + self._lease
            self._connection.execute("UPDATE kernel_holder SET until = ? WHERE id = ?", (self._until, self.holder))
        else:
            self._connection.execute("DELETE FROM kernel_holder WHERE id = ?", (self.holder,))
            self.holder = None

    def dead_holders(self, now: float) -> list[int]:
        """Return the others whose lease has ended."""
        rows = self._connection.execute(
            "SELECT id FROM kernel_holder WHERE until <= ? AND id IS NOT ?", (now, self.holder)
        ).fetchall()
        return [row[0] for row in rows]

    def release(self, holder: int) -> list[tuple[int, int]]:
        """End a lease and make its claims ready, their attempts counted; returns (queue, how many)."""
        rows: list[tuple[int, int]] = self._connection.execute(
            f"SELECT queue, count(*) FROM kernel_entry WHERE state = {CLAIMED} AND holder = ? GROUP BY queue", (holder,)
        ).fetchall()
        self._connection.execute(
            f"UPDATE kernel_entry SET state = {READY}, holder = NULL, redelivered = 1"
            f" WHERE state = {CLAIMED} AND holder = ?",
            (holder,),
        )
        self._connection.execute("DELETE FROM kernel_holder WHERE id = ?", (holder,))
        if holder == self.holder:
            self.holder = None
        self._next = None
        return rows

    @property
    def _renewal(self) -> float:
        return math.inf if self.holder is None else self._until - self._lease * 2 / 3

    def _covers_something(self, holder: int) -> bool:
        row = self._connection.execute(
            f"SELECT EXISTS (SELECT 1 FROM kernel_entry WHERE state = {CLAIMED} AND holder = ?)"
            " OR EXISTS (SELECT 1 FROM kernel_queue WHERE owner = ?)",
            (holder, holder),
        ).fetchone()
        return bool(row[0])

    # --- delays and lives -----------------------------------------------------------------------------------------

    def ended_delays(self, now: float) -> list[tuple[int, int, float | None]]:
        """Return (seq, queue, deadline) of entries whose delay is over, in the order of its end."""
        return self._connection.execute(
            "SELECT seq, queue, deadline FROM kernel_entry INDEXED BY kernel_entry_due"
            f" WHERE state = {DELAYED} AND due <= ? ORDER BY due, seq LIMIT {_STEP}",
            (now,),
        ).fetchall()

    def ended_lives(self, now: float) -> list[tuple[int, int, int, str | None]]:
        """Return (seq, queue, attempts, key) of waiting entries whose time is over."""
        return self._connection.execute(
            "SELECT seq, queue, attempts, key FROM kernel_entry INDEXED BY kernel_entry_expires"
            f" WHERE state IN ({READY}, {BEHIND}) AND expires IS NOT NULL AND expires <= ? ORDER BY expires LIMIT {_STEP}",
            (now,),
        ).fetchall()

    def clean(self, now: float) -> None:
        """Forget ids that were remembered long enough."""
        if now < self._clean_at:
            return
        for table in ("kernel_once", "kernel_seen"):
            self._connection.execute(f"DELETE FROM {table} WHERE until <= ?", (now,))
        self._clean_at = now + _CLEANING

    def _find_next(self) -> float:
        row = self._connection.execute(
            f"SELECT min(coalesce((SELECT min(due) FROM kernel_entry WHERE state = {DELAYED}), 9e999),"
            f" coalesce((SELECT min(expires) FROM kernel_entry WHERE state IN ({READY}, {BEHIND}) AND expires IS NOT NULL), 9e999),"
            " coalesce((SELECT min(until) FROM kernel_holder WHERE id IS NOT ?), 9e999))",
            (self.holder,),
        ).fetchone()
        return float(row[0])
