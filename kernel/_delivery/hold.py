"""What a dispatcher keeps in hand for workers that cannot be called: paused by their kill switch, or gone for good."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import final

import attrs
import trio

from .._core.broker import Delivery
from .kill_switch import KillSwitch


@final
@attrs.define(eq=False, repr=False)
class Hold:
    """The deliveries of one life of a dispatcher that wait for something else than a place or a batch."""

    slots: int
    """How many deliveries the dispatcher takes."""
    give_up: Callable[[], None]
    """Called when all of them are for workers that are gone, so that nothing can go on."""
    was_full: bool = attrs.field(default=False, init=False)
    """Whether that has happened."""
    is_closing: bool = attrs.field(default=False, init=False)
    """Whether nothing new comes, so that what waits goes back."""
    _scopes: set[trio.CancelScope] = attrs.field(factory=set[trio.CancelScope], init=False)
    _kept: set[trio.CancelScope] = attrs.field(factory=set[trio.CancelScope], init=False)
    """Those of them in which deliveries wait whose workers are gone."""
    _orphans: dict[int, int] = attrs.field(factory=dict[int, int], init=False)
    """The deliveries whose workers are gone, by `id`, and for how many such workers each waits."""

    def close(self) -> None:
        """Let go of what waits."""
        self.is_closing = True
        for scope in self._scopes:
            scope.cancel()

    def release(self) -> None:
        """Let go of what is for workers that are gone, since one of them has come back after all."""
        for scope in self._kept:
            scope.cancel()

    async def enter(self, switch: KillSwitch, *, deadline: float) -> bool | None:
        """Return what `KillSwitch.enter` does, or None if nobody is let in any more, or in time.

        Cancellation: Is a checkpoint if it waits.
        """
        with self._waiting(deadline):
            return await switch.enter()
        return None  # noqa: ASYNC910  only reached when the scope was cancelled

    async def keep(self, delivery: Delivery) -> None:
        """Keep what is for a worker that is gone until nothing new comes, or nobody wants it any more.

        Cancellation: Is a checkpoint.
        """
        key = id(delivery)
        self._orphans[key] = self._orphans.get(key, 0) + 1
        if len(self._orphans) >= self.slots:
            self.was_full = True
            self.give_up()
        try:
            with self._waiting(delivery.envelope.deadline) as scope:
                self._kept.add(scope)
                try:
                    await trio.sleep_forever()
                finally:
                    self._kept.remove(scope)
        finally:
            self._orphans[key] -= 1
            if not self._orphans[key]:
                del self._orphans[key]

    @contextmanager
    def _waiting(self, deadline: float) -> Generator[trio.CancelScope]:
        scope = trio.CancelScope(deadline=deadline)
        if self.is_closing:
            scope.cancel()
        self._scopes.add(scope)
        try:
            with scope:
                yield scope
        finally:
            self._scopes.remove(scope)
