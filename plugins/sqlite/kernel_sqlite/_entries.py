"""The rows of messages. Writes are gathered and go to SQLite many at a time.

Each step of a statement gives the interpreter away and has to get it back, which takes milliseconds while the event
loop computes. So there are few of them: inserts in blocks, and deletes by list. Entries that differ in their numbers
alone, as most do that are written together, are made from what is in the table of contents by then, without values.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias, final

import attrs

from ._letter import Claim, Letter
from ._schema import BEHIND, CLAIMED, DELAYED, READY

_BLOCKS: Final = (128, 64, 32, 16, 8, 4, 2, 1)
"""Rows in one INSERT; few sizes, so that their statements stay prepared."""
_CONTENT: Final = "c.id, c.subject, c.body, c.headers, c.content_type, c.reply_to, c.correlation_id"
_AMONG: Final = "(SELECT value FROM json_each(?))"
_LETTER: Final = f"{_CONTENT}, e.rank, 0.0, e.deadline"
_COLUMNS: Final = f"e.seq, e.attempts, e.redelivered, e.expires, e.key, {_LETTER}"
_READY_FIRST: Final = (
    f"SELECT {_COLUMNS} FROM kernel_entry AS e INDEXED BY kernel_entry_ready"
    " CROSS JOIN kernel_content AS c ON c.seq = e.seq"
    f" WHERE e.queue = ? AND e.state = {READY} ORDER BY e.rank, e.place LIMIT ?"
)
_BEHIND_FIRST: Final = (
    f"SELECT {_COLUMNS} FROM kernel_entry AS e INDEXED BY kernel_entry_oldest"
    " CROSS JOIN kernel_content AS c ON c.seq = e.seq"
    f" WHERE e.queue = ? AND e.state = {BEHIND} ORDER BY e.place LIMIT ?"
)
_PAGE: Final = (
    f"SELECT {_COLUMNS} FROM kernel_entry AS e CROSS JOIN kernel_content AS c ON c.seq = e.seq"
    " WHERE e.queue = ? AND e.seq > ? ORDER BY e.seq LIMIT ?"
)


@final
@attrs.frozen(repr=False)
class _Insert:
    """What puts rows into a table, in blocks."""

    table: str
    row: str
    """Values of one row: `{0}` is the first that is given for it."""
    width: int
    """Values that are given for a row."""
    _statements: dict[int, str] = attrs.field(factory=dict[int, str], init=False)

    def __attrs_post_init__(self) -> None:
        self._statements.update({size: self._statement(size) for size in _BLOCKS})

    def _statement(self, size: int) -> str:
        rows = (
            self.row.format(*(f"?{number * self.width + place + 1}" for place in range(self.width)))
            for number in range(size)
        )
        return f"INSERT INTO {self.table} VALUES {', '.join(rows)}"

    def write(self, connection: sqlite3.Connection, values: list[object]) -> None:
        """Insert rows, whose values follow each other."""
        start, end = 0, len(values)
        for size in _BLOCKS:
            length = size * self.width
            while end - start >= length:
                connection.execute(self._statements[size], values[start : start + length])
                start += length


_ENTRY: Final = _Insert("kernel_entry", "({0}, {1}, {2}, {3}, {0}, 0, 0, {4}, {5}, {6}, NULL, {7})", 8)
_READY_ENTRY: Final = _Insert(
    "kernel_entry", f"({{0}}, {{1}}, {READY}, {{2}}, {{0}}, 0, 0, {{3}}, {{3}}, NULL, NULL, NULL)", 4
)
"""One that is ready at once and that nothing orders, as most are, in a queue that ends no lives: few values are to bind."""
_RUN: Final = (
    f"INSERT INTO kernel_entry SELECT seq, ?1, {READY}, ?2, seq, 0, 0, ?3, ?3, NULL, NULL, NULL"
    " FROM kernel_content WHERE seq >= ?4 AND seq < ?5"
)
"""Such entries with numbers that follow each other, whose contents are there."""
_SHORT: Final = 8
"""Fewer than so many go into blocks: a statement for each few would take longer."""
_CONTENT_ROW: Final = _Insert("kernel_content", "({0}, {1}, {2}, {3}, {4}, {5}, {6}, {7})", 8)


_Run: TypeAlias = tuple[int, int, float | None, int, int]
"""Queue, rank and deadline of entries, their first number, and the first that is none of theirs."""


class Waiting(NamedTuple):
    """An entry that nobody has taken."""

    seq: int
    attempts: int
    key: str | None


@final
@attrs.define(eq=False, repr=False)
class Entries:
    """Reads and writes entries of one file, inside a transaction of somebody else."""

    _connection: sqlite3.Connection
    last: int = 0
    """The greatest number given to an entry or a place; numbers are never used again."""
    _entries: list[object] = attrs.field(factory=list[object], init=False)
    """The values of rows, one after the other; likewise the next two."""
    _ready: list[object] = attrs.field(factory=list[object], init=False)
    _runs: list[_Run] = attrs.field(factory=list["_Run"], init=False)
    _kind: tuple[int, int, float | None] | None = attrs.field(default=None, init=False)
    """Of the entries of the run that goes on; None if none does."""
    _first: int = attrs.field(default=0, init=False)
    _next: int = attrs.field(default=0, init=False)
    """The first number of that run, and the one that would continue it."""
    _contents: list[object] = attrs.field(factory=list[object], init=False)
    _removed: list[int] = attrs.field(factory=list[int], init=False)

    def next_number(self) -> int:
        """Return a number greater than all before."""
        self.last += 1
        return self.last

    def add(
        self,
        seq: int,
        queue: int,
        letter: Letter,
        *,
        state: int,
        expires: float | None = None,
        due: float | None = None,
        key: str | None = None,
    ) -> None:
        """Add an entry under a new number."""
        self._entries.extend((seq, queue, state, letter.rank, expires, letter.deadline, due, key))
        self._contents.append(seq)
        self._contents.extend(letter[:7])

    def add_ready(self, queue: int, letter: Letter) -> None:
        """Add an entry that is ready, that nothing orders, and that lives until its own deadline."""
        self.last = seq = self.last + 1
        kind = queue, letter[7], letter[9]
        if kind != self._kind or seq != self._next:
            self._end_run()
            self._kind, self._first = kind, seq
        self._next = seq + 1
        self._contents.append(seq)
        self._contents.extend(letter[:7])

    def remove(self, seq: int) -> None:
        """Remove an entry and its content."""
        self._removed.append(seq)

    def flush(self) -> None:
        """Have SQLite see everything; whoever reads calls it first."""
        if self._contents:
            self._end_run()
            _READY_ENTRY.write(self._connection, self._ready)
            _ENTRY.write(self._connection, self._entries)  # before their contents, as whoever counts bytes expects
            _CONTENT_ROW.write(self._connection, self._contents)
            for run in self._runs:
                self._connection.execute(_RUN, run)
        if self._removed:
            among = (json.dumps(self._removed),)
            self._connection.execute(f"DELETE FROM kernel_entry WHERE seq IN {_AMONG}", among)
            self._connection.execute(f"DELETE FROM kernel_content WHERE seq IN {_AMONG}", among)
        self.forget()

    def forget(self) -> None:
        """Drop what was gathered."""
        self._entries.clear()
        self._ready.clear()
        self._runs.clear()
        self._kind = None
        self._contents.clear()
        self._removed.clear()

    def _end_run(self) -> None:
        """Note the run that goes on, by what it begins and ends with if it is long."""
        if self._kind is None:
            return
        if self._next - self._first >= _SHORT:
            self._runs.append((*self._kind, self._first, self._next))
        else:
            for seq in range(self._first, self._next):
                self._ready.extend((seq, *self._kind))
        self._kind = None

    def first_ready(self, queue: int, limit: int) -> list[Claim]:
        """Return the entries that are next, as claims of nobody (`holder` 0) with the attempt they would be."""
        return self._claims(_READY_FIRST, queue, limit)

    def first_behind(self, queue: int, limit: int) -> list[Claim]:
        """Return the first of the entries that wait for others of their keys, as `first_ready` does."""
        return self._claims(_BEHIND_FIRST, queue, limit)

    def page(self, queue: int, after: int, limit: int) -> list[Claim]:
        """Return entries of a queue in any state whose numbers are greater than `after`."""
        return self._claims(_PAGE, queue, after, limit)

    def _claims(self, statement: str, queue: int, *others: int) -> list[Claim]:
        self.flush()
        return [
            Claim(seq, queue, 0, attempts + 1, bool(redelivered), expires, key, Letter._make(letter))
            for seq, attempts, redelivered, expires, key, *letter in self._connection.execute(
                statement, (queue, *others)
            ).fetchall()
        ]

    def letter(self, seq: int) -> Letter | None:
        """Return what a message says; None if it is gone."""
        self.flush()
        row = self._connection.execute(
            f"SELECT {_LETTER} FROM kernel_entry AS e CROSS JOIN kernel_content AS c ON c.seq = e.seq WHERE e.seq = ?",
            (seq,),
        ).fetchone()
        return None if row is None else Letter(*row)

    def take(self, seqs: Sequence[int], holder: int) -> None:
        """Claim entries for a holder and count the attempt."""
        self._connection.execute(
            f"UPDATE kernel_entry SET state = {CLAIMED}, holder = ?, attempts = attempts + 1 WHERE seq IN {_AMONG}",
            (holder, json.dumps(seqs)),
        )

    def put_back(self, seqs: Iterable[int], *, redelivered: bool) -> None:
        """Make claimed entries ready where they stood, as if they had not been claimed."""
        self._connection.execute(
            f"UPDATE kernel_entry SET state = {READY}, holder = NULL, attempts = attempts - 1,"
            f" redelivered = redelivered OR ? WHERE seq IN {_AMONG}",
            (redelivered, json.dumps(list(seqs))),
        )

    def recover(self, claim: Claim) -> bool:
        """Make an entry ready where it stood if it is claimed as that claim says; returns whether it was."""
        self.flush()
        done = self._connection.execute(
            f"UPDATE kernel_entry SET state = {READY}, holder = NULL, redelivered = 1"
            f" WHERE seq = ? AND state = {CLAIMED} AND holder = ? AND attempts = ?",
            (claim.seq, claim.holder, claim.attempt),
        )
        return done.rowcount == 1

    def put_last(self, seq: int, *, state: int, expires: float | None, key: str | None) -> None:
        """Make an entry wait behind all others of its priority."""
        self._connection.execute(
            "UPDATE kernel_entry SET state = ?, holder = NULL, due = NULL, place = ?, expires = ?, key = ?,"
            f" redelivered = (redelivered OR state = {CLAIMED}) WHERE seq = ?",
            (state, self.next_number(), expires, key, seq),
        )

    def put_later(self, seq: int, *, due: float) -> None:
        """Delay a claimed entry."""
        self._connection.execute(
            f"UPDATE kernel_entry SET state = {DELAYED}, holder = NULL, due = ?, place = ?, redelivered = 1"
            " WHERE seq = ?",
            (due, self.next_number(), seq),
        )

    def move(self, seq: int, queue: int, *, state: int, headers: str, expires: float | None, key: str | None) -> None:
        """Make an entry of one queue a fresh one of another, with other headers."""
        self._connection.execute("UPDATE kernel_content SET headers = ? WHERE seq = ?", (headers, seq))
        self._connection.execute(
            "UPDATE kernel_entry SET queue = ?, state = ?, place = ?, attempts = 0, redelivered = 0,"
            " expires = ?, deadline = NULL, due = NULL, holder = NULL, key = ? WHERE seq = ?",
            (queue, state, self.next_number(), expires, key, seq),
        )

    def oldest(self, queue: int) -> Waiting | None:
        """Return the entry that has been there longest, those with a delay last; None if none waits."""
        self.flush()
        places = [self._first_place(queue, rank) for rank in range(10)] + [self._first_place(queue, None)]
        found = min((row for row in places if row is not None), default=None)
        found = found or self._one(f"queue = ? AND state = {DELAYED}", (queue,))
        return None if found is None else Waiting(*found[1:])

    def waiting(self, queue: int, limit: int) -> list[Waiting]:
        """Return entries that wait, in no order."""
        self.flush()
        found: list[Waiting] = []
        for state in (READY, DELAYED, BEHIND):
            rows = self._connection.execute(
                f"SELECT seq, attempts, key FROM kernel_entry WHERE queue = ? AND state = {state} LIMIT ?",
                (queue, limit - len(found)),
            )
            found += [Waiting(*row) for row in rows.fetchall()]
        return found

    def _first_place(self, queue: int, rank: int | None) -> tuple[int, int, int, str | None] | None:
        if rank is None:
            return self._one(f"queue = ? AND state = {BEHIND}", (queue,))
        return self._one(f"queue = ? AND state = {READY} AND rank = ?", (queue, rank))

    def _one(self, condition: str, parameters: tuple[int, ...]) -> tuple[int, int, int, str | None] | None:
        row: tuple[int, int, int, str | None] | None = self._connection.execute(
            f"SELECT place, seq, attempts, key FROM kernel_entry WHERE {condition} ORDER BY place LIMIT 1", parameters
        ).fetchone()
        return row
