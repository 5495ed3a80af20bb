"""Keeps dispatchers from accepting before all of them have opened: a service that cannot start handles nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import attrs
import trio

from .._core.spec import AnySpec, DispatcherSpec


@final
@attrs.define(eq=False, repr=False)
class Gate:
    """Where a dispatcher that has opened waits for the others. Once it is open it stays so: who restarts passes alone."""

    _missing: set[str]
    """Ids of those that it waits for and that are not waiting in it."""
    waiting: set[str] = attrs.field(factory=set[str], init=False)
    """Ids of those that wait in it."""
    _open: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def missing(self) -> frozenset[str]:
        """Ids of those that it waits for."""
        return frozenset(self._missing)

    async def wait(self, id_: str) -> None:
        """Say that a dispatcher has opened, and wait until all have.

        Cancellation: Is a checkpoint. If cancelled, the dispatcher counts as not opened.
        """
        is_awaited = id_ in self._missing
        self._missing.discard(id_)
        if not self._missing:
            self._open.set()
        self.waiting.add(id_)
        try:
            await self._open.wait()
        finally:
            self.waiting.discard(id_)
            if is_awaited and not self._open.is_set():
                self._missing.add(id_)

    def renew(self, components: Mapping[str, AnySpec]) -> None:
        """Wait for the dispatchers of other components from now on, unless it is open.

        Args:
            components: In start order.
        """
        if not self._open.is_set():
            self._missing = awaited(components) - self.waiting
            if not self._missing:
                self._open.set()


def gate(components: Mapping[str, AnySpec]) -> Gate:
    """Return the gate of a plan.

    Args:
        components: In start order.
    """
    return Gate(awaited(components))


def awaited(components: Mapping[str, AnySpec]) -> set[str]:
    """Return the ids of those that the gate of a plan waits for.

    It waits for the essential dispatchers, since the failure of another does not end the service; and not for those
    that stand on a dispatcher, which open only when that one accepts. What surrounds the service has no part in it.

    Args:
        components: In start order.
    """
    above: set[str] = set()
    dispatchers = {
        id_: spec for id_, spec in components.items() if isinstance(spec, DispatcherSpec) and not spec.cls.surrounds
    }
    for id_, spec in components.items():
        if any(one in above or one in dispatchers for one in (*spec.uses, *spec.after)):
            above.add(id_)
    return {id_ for id_, spec in dispatchers.items() if spec.essential} - above
