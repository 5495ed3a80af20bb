"""Ordering by key: who is first of its key, and who waits behind it. Knows no clock and no consumer."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias, final

import attrs

from ._waiting import Entry

_Line: TypeAlias = "OrderedDict[Entry, None]"


@final
@attrs.define(eq=False, repr=False)
class Lanes:
    """The entries of a queue with `partition_by`, one line for each key.

    The first of a line is on its way: it stands with what is ready, is taken, or waits for its retry. The others are
    behind it, and held here.
    """

    _lines: dict[str, _Line] = attrs.field(factory=dict[str, _Line], init=False)
    """Key -> who waits behind its first; there is a line as long as there is a first."""
    _firsts: dict[str, Entry] = attrs.field(factory=dict[str, Entry], init=False)
    behind: OrderedDict[Entry, None] = attrs.field(factory=OrderedDict[Entry, None], init=False)
    """All that wait behind a first, in the order in which they came."""

    def admit(self, entry: Entry) -> bool:
        """Return whether an entry is the first of its key, as it is if it was before; if not, it is held."""
        if entry.key is None:
            return True
        first = self._firsts.setdefault(entry.key, entry)
        if first is entry:
            return True
        self._lines.setdefault(entry.key, OrderedDict())[entry] = None
        self.behind[entry] = None
        return False

    def is_first(self, entry: Entry) -> bool:
        """Return whether others may wait behind an entry."""
        return entry.key is not None and self._firsts.get(entry.key) is entry

    def advance(self, key: str) -> Entry | None:
        """Forget the first of a key, whose way has ended, and return who is first in its place."""
        line = self._lines.get(key)
        if not line:
            del self._firsts[key]
            return None
        entry, _ = line.popitem(last=False)
        self._forget(entry, line, key)
        self._firsts[key] = entry
        return entry

    def remove(self, entry: Entry) -> None:
        """Remove an entry that waits behind another."""
        assert entry.key is not None  # only those with a key are held
        line = self._lines[entry.key]
        del line[entry]
        self._forget(entry, line, entry.key)

    def clear(self) -> None:
        """Forget all."""
        self._lines.clear()
        self._firsts.clear()
        self.behind.clear()

    def _forget(self, entry: Entry, line: _Line, key: str) -> None:
        del self.behind[entry]
        if not line:
            del self._lines[key]
