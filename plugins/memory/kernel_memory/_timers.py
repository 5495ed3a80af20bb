"""Everything that has to happen later, in one task however much it is."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Final, final

import attrs
import trio

_SPARE: Final = 64
"""Cancelled timers that the heap may hold before it is worth rebuilding."""


@final
@attrs.define(eq=False, repr=False)
class Timer:
    """One thing to do at a time; None when it is done or cancelled."""

    when: float
    action: Callable[[], None] | None


@final
@attrs.define(eq=False, repr=False)
class Timers:
    """Calls functions at times of trio's clock while `run` runs.

    Cancelled timers are forgotten once they outnumber the others, so memory is bounded by what is pending.
    """

    _heap: list[tuple[float, int, Timer]] = attrs.field(factory=list[tuple[float, int, Timer]], init=False)
    _order: itertools.count[int] = attrs.field(factory=itertools.count, init=False)
    _cancelled: int = attrs.field(default=0, init=False)
    _nap: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def call_at(self, when: float, action: Callable[[], None]) -> Timer:
        """Have `action` called at `when`, in `trio.current_time()`."""
        timer = Timer(when, action)
        heapq.heappush(self._heap, (when, next(self._order), timer))
        self._nap.deadline = min(self._nap.deadline, when)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Forget a timer; does nothing if it has fired."""
        if timer.action is None:
            return
        timer.action = None
        self._cancelled += 1
        if self._cancelled > len(self) + _SPARE:
            self._heap = [entry for entry in self._heap if entry[2].action]
            heapq.heapify(self._heap)
            self._cancelled = 0

    async def run(self) -> None:
        """Never returns unless cancelled."""
        while True:
            with trio.CancelScope(deadline=self._heap[0][0] if self._heap else math.inf) as self._nap:
                await trio.sleep_forever()
            self._fire()

    def _fire(self) -> None:
        while self._heap and self._heap[0][0] <= trio.current_time():
            timer = heapq.heappop(self._heap)[2]
            action, timer.action = timer.action, None
            if action is None:
                self._cancelled -= 1
            else:
                action()
