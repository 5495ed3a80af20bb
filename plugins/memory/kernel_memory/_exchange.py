"""One exchange: which queues get a copy of a message."""

from __future__ import annotations

from typing import Final, final

import attrs

from kernel import pattern_matches
from kernel.abc import Exchange

_REMEMBERED: Final = 1024
"""Subjects whose queues are remembered; then all are forgotten, so that made-up subjects cannot fill the memory."""


@final
@attrs.define(eq=False, repr=False)
class MemoryExchange:
    """The bindings of an exchange."""

    spec: Exchange
    _bindings: dict[tuple[str, str], None] = attrs.field(factory=dict[tuple[str, str], None], init=False)
    """(pattern, queue), in the order of binding."""
    _routes: dict[str, tuple[str, ...]] = attrs.field(factory=dict[str, tuple[str, ...]], init=False)

    def bind(self, pattern: str, queue: str) -> None:
        """Have a queue get a copy of what matches; does nothing if it is so."""
        self._bindings[pattern, queue] = None
        self._routes.clear()

    def unbind(self, queue: str, pattern: str | None = None) -> None:
        """Forget a queue, or one of its patterns."""
        for binding in [one for one in self._bindings if one[1] == queue and pattern in {None, one[0]}]:
            del self._bindings[binding]
        self._routes.clear()

    def route(self, subject: str) -> tuple[str, ...]:
        """Return the names of the queues that get a copy: each once, however many of its bindings match."""
        queues = self._routes.get(subject)
        if queues is None:
            if len(self._routes) >= _REMEMBERED:
                self._routes.clear()
            queues = self._routes[subject] = self._find(subject)
        return queues

    def _find(self, subject: str) -> tuple[str, ...]:
        found = (queue for pattern, queue in self._bindings if pattern_matches(pattern, subject))
        return tuple(dict.fromkeys(found))
