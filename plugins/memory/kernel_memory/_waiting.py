"""The messages of a queue that are ready to be delivered, in the order in which they will be. Knows no clock."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Final, final

import attrs

from kernel import Envelope

from ._timers import Timer

_SPARE: Final = 64
"""Removed entries that may stay behind before it is worth sweeping them out."""


@final
@attrs.define(eq=False)
class Entry:
    """One message in one queue."""

    envelope: Envelope
    attempts: int = 0
    """Counted so far, the running one included."""
    redelivered: bool = False
    expires: float = math.inf
    """In `trio.current_time()`."""
    order: int = 0
    """Grows from message to message: what was there first."""
    timer: Timer | None = None
    """What expires it, or ends its delay."""
    waits: bool = False
    """Whether it stands in `Waiting`."""
    key: str | None = None
    """What orders it among others; None for nothing."""
    sent: float | None = None
    """In `trio.current_time()`."""


@final
@attrs.define(eq=False, repr=False)
class Waiting:
    """Entries by priority, 9 first, and within one priority by `order`."""

    _levels: list[deque[Entry]] = attrs.field(factory=lambda: [deque[Entry]() for _ in range(10)], init=False)
    _top: int = attrs.field(default=0, init=False)
    """No level above it holds anything."""
    _count: int = attrs.field(default=0, init=False)
    _removed: int = attrs.field(default=0, init=False)
    """Entries that stand in a level but do not wait any more."""

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        return (entry for level in reversed(self._levels) for entry in level if entry.waits)

    def add(self, entry: Entry) -> None:
        """Put an entry behind those of its priority."""
        self._level(entry).append(entry)

    def add_back(self, entry: Entry) -> None:
        """Put an entry where it was, or would be: before everything that came after it."""
        level = self._level(entry)
        level.insert(_place(level, entry.order), entry)

    def take(self) -> Entry | None:
        """Remove and return the next entry; None if there is none."""
        while self._count:
            level = self._levels[self._top]
            while level:
                entry = level.popleft()
                if entry.waits:
                    self._leave(entry)
                    return entry
                self._removed -= 1
            self._top -= 1
        return None

    def oldest(self) -> Entry | None:
        """Return the entry that came first, whatever its priority; None if there is none."""
        firsts = [entry for level in self._levels if (entry := self._first(level))]
        return min(firsts, key=lambda entry: entry.order, default=None)

    def remove(self, entry: Entry) -> None:
        """Remove an entry from wherever it stands, in constant time on average."""
        self._leave(entry)
        self._removed += 1
        if self._removed > self._count + _SPARE:
            self._levels = [deque(other for other in level if other.waits) for level in self._levels]
            self._removed = 0

    def _level(self, entry: Entry) -> deque[Entry]:
        priority = entry.envelope.priority
        self._top = max(self._top, priority)
        self._count += 1
        entry.waits = True
        return self._levels[priority]

    def _leave(self, entry: Entry) -> None:
        entry.waits = False
        self._count -= 1

    def _first(self, level: deque[Entry]) -> Entry | None:
        while level:
            if level[0].waits:
                return level[0]
            level.popleft()
            self._removed -= 1
        return None


def _place(level: deque[Entry], order: int) -> int:
    """Return where an entry belongs; looks from both ends, since it is near one of them."""
    for index in range(len(level)):
        if level[index].order > order:
            return index
        if level[-1 - index].order < order:
            return len(level) - index
    return len(level)
