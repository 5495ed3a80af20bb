"""How many calls run at a time, who is next, and what becomes of those that wait when their worker drains."""

from __future__ import annotations

from collections import deque
from typing import final

import attrs
import trio

from kernel import Usage


@final
@attrs.define(eq=False, repr=False)
class _Waiting:
    worker: str
    called: trio.Event = attrs.field(factory=trio.Event, init=False)
    has_place: bool = attrs.field(default=False, init=False)


@final
@attrs.define(eq=False, repr=False)
class Places:
    """A bounded number of places, given in turn."""

    size: int
    gives_back: bool
    """Whether those that wait are sent away when their worker drains."""
    free: int = attrs.field(init=False, default=attrs.Factory(lambda self: self.size, takes_self=True))
    _waiting: deque[_Waiting] = attrs.field(factory=deque[_Waiting], init=False)
    _draining: set[str] = attrs.field(factory=set[str], init=False)

    async def take(self, worker: str) -> bool:
        """Wait for a place; returns False if the worker drains, and nobody is to wait then.

        Cancellation: Is a checkpoint. If cancelled, no place was taken.
        """
        await trio.lowlevel.checkpoint()
        if self.free and not self._waiting:
            self.free -= 1
            return True
        if worker in self._draining:
            return False
        waiting = _Waiting(worker)
        self._waiting.append(waiting)
        try:
            await waiting.called.wait()
        except trio.Cancelled:
            if waiting.has_place:
                self.leave()
            elif waiting in self._waiting:
                self._waiting.remove(waiting)
            raise
        return waiting.has_place

    def usage(self) -> Usage:
        """Return how many are taken now. May be called from any thread."""
        return Usage(used=self.size - self.free, waiting=len(self._waiting), limit=self.size)

    def leave(self) -> None:
        """Give a place to who has waited longest."""
        if self._waiting:
            following = self._waiting.popleft()
            following.has_place = True
            following.called.set()
        else:
            self.free += 1

    def drain(self, worker: str) -> None:
        """Send away those that wait for a worker, if that is wanted, and those that come."""
        if not self.gives_back:
            return
        self._draining.add(worker)
        for waiting in [one for one in self._waiting if one.worker == worker]:
            self._waiting.remove(waiting)
            waiting.called.set()

    def resume(self, worker: str) -> None:
        """Let calls of a worker wait again."""
        self._draining.discard(worker)
