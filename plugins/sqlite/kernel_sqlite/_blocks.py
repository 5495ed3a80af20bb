"""Rows of many messages in few statements.

Each step of a statement gives the interpreter away, and each value that is bound is copied. So rows go in blocks, and
what messages that were sent together have in common is bound once for all of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final, final

import attrs

from ._letter import Letter
from ._schema import READY

SIZES: Final = (128, 64, 32, 16, 8, 4, 2, 1)
"""Rows in one INSERT; few sizes, so that their statements stay prepared."""
SHORT: Final = 8
"""Fewer messages than so many are not worth the look for what they have in common."""
_RUN: Final = (
    f"INSERT INTO kernel_entry SELECT seq, ?1, {READY}, ?2, seq, 0, 0, ?3, ?3, NULL, NULL, NULL"
    " FROM kernel_content WHERE seq >= ?4 AND seq < ?5"
)
"""Entries that differ in their numbers alone, whose contents are there."""


_OWN: Final = (0, 2)
"""Where in a letter its id and body stand."""


@final
@attrs.frozen(repr=False)
class Insert:
    """What puts rows into a table, in blocks."""

    table: str
    row: str
    """Values of one row: `{0}` is the first that is given for it."""
    width: int
    """Values that are given for a row."""
    _statements: dict[int, str] = attrs.field(factory=dict[int, str], init=False)

    def __attrs_post_init__(self) -> None:
        self._statements.update({size: self._statement(size) for size in SIZES})

    def _statement(self, size: int) -> str:
        rows = (
            self.row.format(*(f"?{number * self.width + place + 1}" for place in range(self.width)))
            for number in range(size)
        )
        return f"INSERT INTO {self.table} VALUES {', '.join(rows)}"

    def write(self, connection: sqlite3.Connection, values: list[object]) -> None:
        """Insert rows, whose values follow each other."""
        start, end = 0, len(values)
        for size in SIZES:
            length = size * self.width
            while end - start >= length:
                connection.execute(self._statements[size], values[start : start + length])
                start += length


CONTENT: Final = Insert("kernel_content", "({0}, {1}, {2}, {3}, {4}, {5}, {6}, {7})", 8)
READY_ENTRY: Final = Insert(
    "kernel_entry", f"({{0}}, {{1}}, {READY}, {{2}}, {{0}}, 0, 0, {{3}}, {{3}}, NULL, NULL, NULL)", 4
)
"""One that is ready at once and that nothing orders, as most are, in a queue that ends no lives: few values are to bind."""


@final
@attrs.define(eq=False, repr=False)
class Blocks:
    """Writes messages that are ready, whose numbers follow each other."""

    _connection: sqlite3.Connection
    _statements: dict[tuple[str, int], str] = attrs.field(factory=dict[tuple[str, int], str], init=False)
    """By their marks, of which there are 32, and sizes."""

    def write(self, first: int, queues: Sequence[int], letters: Sequence[Letter]) -> None:
        """Write contents and entries; the message with the number `first` is the first of the letters."""
        *contents, ranks, _, deadlines = zip(*letters, strict=True)
        for start, size in _parts(len(letters)):
            self._write_contents(first + start, [column[start : start + size] for column in contents])
        if all(map(_is_one, (queues, ranks, deadlines))):
            self._connection.execute(_RUN, (queues[0], ranks[0], deadlines[0], first, first + len(letters)))
            return
        numbers = range(first, first + len(letters))
        READY_ENTRY.write(
            self._connection, list(chain.from_iterable(zip(numbers, queues, ranks, deadlines, strict=True)))
        )

    def _write_contents(self, first: int, columns: Sequence[Sequence[object]]) -> None:
        # Ids differ and bodies mostly do, which may be long to compare.
        marks = "".join(["?" if place in _OWN or not _is_one(column) else "=" for place, column in enumerate(columns)])
        shared = [column[0] for column, mark in zip(columns, marks, strict=True) if mark == "="]
        own = [column for column, mark in zip(columns, marks, strict=True) if mark == "?"]
        self._connection.execute(
            self._statement(marks, len(columns[0])), [first, *shared, *chain.from_iterable(zip(*own, strict=True))]
        )

    def _statement(self, marks: str, size: int) -> str:
        """Return what inserts rows; a mark for each column says whether its value is shared, or given for each row."""
        statement = self._statements.get((marks, size))
        if statement is None:
            rows = ", ".join(_row(marks, number) for number in range(size))
            statement = self._statements[marks, size] = f"INSERT INTO kernel_content VALUES {rows}"
        return statement


def _row(marks: str, number: int) -> str:
    shared = iter(range(2, 9))
    own = iter(range(2 + marks.count("=") + number * marks.count("?"), 2000))
    values = (f"?{next(shared if mark == '=' else own)}" for mark in marks)
    return f"(?1 + {number}, {', '.join(values)})"


def _is_one(column: Sequence[object]) -> bool:
    """Return whether all values are the same."""
    return column.count(column[0]) == len(column)


def _parts(length: int) -> Iterator[tuple[int, int]]:
    start = 0
    for size in SIZES:
        while length - start >= size:
            yield start, size
            start += size
