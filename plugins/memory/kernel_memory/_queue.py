"""One queue: what waits in it, who waits for it, and what time does to it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import final

import attrs
import trio

from kernel.abc import Queue, partition_key

from ._lanes import Lanes
from ._seen import Seen
from ._timers import Timers
from ._waiting import Entry, Waiting


class Wish(ABC):
    """Somebody who waits for one entry of a queue."""

    __slots__ = ()

    @abstractmethod
    def grant(self, entry: Entry) -> None:
        """Hand the entry over."""


@final
@attrs.define(eq=False, repr=False)
class MemoryQueue:
    """Holds at most `limit` messages that wait, delays included, besides those that consumers gave back.

    Either nothing is ready or nobody waits: an entry that comes while somebody waits never stands in the queue.
    """

    spec: Queue
    limit: int
    timers: Timers
    expire: Callable[[MemoryQueue, Entry], None]
    """Takes an entry that has left the queue because its time is over."""
    seen: Seen | None = None
    """The ids that are duplicates if they come again; None takes all."""
    consumers: int = attrs.field(default=0, init=False)
    gone: bool = attrs.field(default=False, init=False)
    _ready: Waiting = attrs.field(factory=Waiting, init=False)
    _delayed: dict[Entry, None] = attrs.field(factory=dict[Entry, None], init=False)
    _wishes: deque[Wish] = attrs.field(factory=deque[Wish], init=False)
    _orders: int = attrs.field(default=0, init=False)
    _lanes: Lanes | None = attrs.field(
        init=False, default=attrs.Factory(lambda self: Lanes() if self.spec.partition_by else None, takes_self=True)
    )

    def __len__(self) -> int:
        return len(self._ready) + len(self._delayed) + (len(self._lanes.behind) if self._lanes else 0)

    @property
    def is_full(self) -> bool:
        """Whether it holds as many messages as it may."""
        return len(self) >= self.limit

    def put(self, entry: Entry) -> None:
        """Take an entry in, behind the others of its priority."""
        self._orders += 1
        entry.order = self._orders
        entry.expires = self._end_of(entry)
        if self._lanes is not None:
            entry.key = partition_key(entry.envelope, self.spec.partition_by)
            if not self._lanes.admit(entry):
                self._watch(entry, self._expire_behind)
                return
        if not self._offer(entry):
            self._ready.add(entry)

    def release(self, entry: Entry) -> None:
        """Let the next of its key go on, now that an entry which was the first has ended."""
        if self._lanes is None or entry.key is None or not self._lanes.is_first(entry):
            return
        while (following := self._lanes.advance(entry.key)) is not None:
            self._unwatch(following)
            if not self._is_over(following):
                self.put_back(following)
                return
            self.expire(self, following)

    def put_later(self, entry: Entry, seconds: float) -> None:
        """Take an entry in and hold it back for some seconds."""
        if seconds <= 0:
            self.put(entry)
            return
        self._delayed[entry] = None
        entry.timer = self.timers.call_at(trio.current_time() + seconds, partial(self._wake, entry))

    def put_back(self, entry: Entry) -> None:
        """Take back an entry that was taken, to the place where it was."""
        if not self._offer(entry):
            self._ready.add_back(entry)

    def take(self) -> Entry | None:
        """Remove and return the next entry; None if none is ready."""
        while (entry := self._ready.take()) is not None:
            if entry.expires == math.inf:
                return entry
            self._unwatch(entry)
            if not self._is_over(entry):
                return entry
            self._end(entry)
        return None

    def displace(self) -> Entry | None:
        """Remove and return the oldest entry; None if the queue is empty."""
        entry = self._ready.oldest()
        behind = next(iter(self._lanes.behind), None) if self._lanes else None
        if self._lanes and behind is not None and (entry is None or behind.order < entry.order):
            self._lanes.remove(behind)
            entry = behind
        elif entry is not None:
            self._ready.remove(entry)
        elif self._delayed:
            entry = next(iter(self._delayed))
            del self._delayed[entry]
        if entry is not None:
            self._unwatch(entry)
            self.release(entry)
        return entry

    def peek(self, limit: int) -> list[Entry]:
        """Return the next entries without taking them; those that wait for others of their key come last."""
        behind = self._lanes.behind if self._lanes else ()
        entries = (entry for entry in chain(self._ready, behind) if not self._is_over(entry))
        return [entry for entry, _ in zip(entries, range(limit), strict=False)]

    def wish(self, wish: Wish) -> None:
        """Have a wish granted with the next entry; first come, first served. Only when `take` returned None."""
        self._wishes.append(wish)

    def forget(self, wish: Wish) -> None:
        """Take a wish back, if it stands here."""
        if wish in self._wishes:
            self._wishes.remove(wish)

    def clear(self) -> int:
        """Remove everything and stop its timers; returns how many there were."""
        count = 0
        while (entry := self.displace()) is not None:
            entry.timer = None
            count += 1
        if self._lanes is not None:
            self._lanes.clear()
        return count

    def _offer(self, entry: Entry) -> bool:
        """Return whether somebody took the entry; if not, its end is watched from here on."""
        if entry.expires != math.inf and self._is_over(entry):
            self._end(entry)
            return True
        if self._wishes:
            self._wishes.popleft().grant(entry)
            return True
        self._watch(entry, self._expire)
        return False

    def _watch(self, entry: Entry, expire: Callable[[Entry], None]) -> None:
        if entry.expires != math.inf:
            entry.timer = self.timers.call_at(entry.expires, partial(expire, entry))

    def _end(self, entry: Entry) -> None:
        self.expire(self, entry)
        self.release(entry)

    def _end_of(self, entry: Entry) -> float:
        if self.spec.ttl is None:
            return entry.envelope.deadline
        return min(entry.envelope.deadline, trio.current_time() + self.spec.ttl)

    def _is_over(self, entry: Entry) -> bool:
        return entry.expires != math.inf and entry.expires <= trio.current_time()

    def _unwatch(self, entry: Entry) -> None:
        if entry.timer is not None:
            self.timers.cancel(entry.timer)
            entry.timer = None

    def _expire(self, entry: Entry) -> None:
        self._ready.remove(entry)
        entry.timer = None
        self._end(entry)

    def _expire_behind(self, entry: Entry) -> None:
        assert self._lanes is not None  # it is held there
        self._lanes.remove(entry)
        entry.timer = None
        self.expire(self, entry)

    def _wake(self, entry: Entry) -> None:
        del self._delayed[entry]
        entry.timer = None
        self.put(entry)
