"""The rows of messages. Writes are gathered and go to SQLite many at a time.

Each step of a statement gives the interpreter away and has to get it back, which takes milliseconds while the event
loop computes. So there are few of them: inserts in blocks, and deletes by list.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, final

import attrs

from ._blocks import CONTENT, READY_ENTRY, SHORT, Blocks, Insert
from ._letter import Claim, Letter
from ._schema import BEHIND, CLAIMED, DELAYED, READY

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


_ENTRY: Final = Insert("kernel_entry", "({0}, {1}, {2}, {3}, {0}, 0, 0, {4}, {5}, {6}, NULL, {7})", 8)


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
    _contents: list[object] = attrs.field(factory=list[object], init=False)
    _letters: list[Letter] = attrs.field(factory=list[Letter], init=False)
    """What was added last, under numbers that follow each other up to `last`, and in which queues it is ready."""
    _queues: list[int] = attrs.field(factory=list[int], init=False)
    _runs: list[tuple[int, list[int], list[Letter]]] = attrs.field(
        factory=list[tuple[int, list[int], list[Letter]]], init=False
    )
    """Such messages whose following numbers went to others, each time with the first of theirs."""
    _blocks: Blocks = attrs.field(
        init=False, default=attrs.Factory(lambda self: Blocks(self._connection), takes_self=True)
    )
    _removed: list[int] = attrs.field(factory=list[int], init=False)

    def next_number(self) -> int:
        """Return a number greater than all before."""
        self._end_run()
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
        self.last += 1
        self._letters.append(letter)
        self._queues.append(queue)

    def remove(self, seq: int) -> None:
        """Remove an entry and its content."""
        self._removed.append(seq)

    def flush(self) -> None:
        """Have SQLite see everything; whoever reads calls it first."""
        self._end_run()
        if self._contents:
            READY_ENTRY.write(self._connection, self._ready)
            _ENTRY.write(self._connection, self._entries)  # before their contents, as whoever counts bytes expects
            CONTENT.write(self._connection, self._contents)
        for run in self._runs:
            self._blocks.write(*run)
        if self._removed:
            among = (json.dumps(self._removed),)
            self._connection.execute(f"DELETE FROM kernel_entry WHERE seq IN {_AMONG}", among)
            self._connection.execute(f"DELETE FROM kernel_content WHERE seq IN {_AMONG}", among)
        self.forget()

    def forget(self) -> None:
        """Drop what was gathered."""
        self._entries.clear()
        self._ready.clear()
        self._letters.clear()
        self._queues.clear()
        self._runs.clear()
        self._contents.clear()
        self._removed.clear()

    def _end_run(self) -> None:
        """Note what was added last, since the next number is none of its."""
        if not (letters := self._letters):
            return
        queues, first = self._queues, self.last - len(letters) + 1
        self._letters, self._queues = [], []
        if len(letters) >= SHORT:
            self._runs.append((first, queues, letters))
            return
        for seq, queue, letter in zip(range(first, self.last + 1), queues, letters, strict=True):
            self._ready.extend((seq, queue, letter.rank, letter.deadline))
            self._contents.append(seq)
            self._contents.extend(letter[:7])

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
