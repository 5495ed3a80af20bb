"""The way from the thread back into the event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, final

import attrs
import trio

from ._operation import Operation
from ._shelves import Effects


@final
@attrs.frozen(repr=False)
class Listener:
    """Who is told, in the event loop, what becomes of the file."""

    on_effects: Callable[[Effects], None]
    on_foreign: Callable[[], None]
    """Another process wrote something, while somebody was hungry."""
    on_health: Callable[[str], None]
    """What is wrong with the file; empty when nothing is any more."""


@final
@attrs.define(eq=False, repr=False)
class Teller:
    """Calls what has to be called in the event loop, in the order in which it happened. For any thread."""

    listener: Listener
    _token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token, init=False)
    _complaint: str = attrs.field(default="", init=False)

    def tell(self, what: Callable[[], object]) -> None:
        """Call something, soon; a loop that has ended hears nothing."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(what)

    def tell_all(self, operations: Sequence[Operation[Any]], effects: Effects) -> None:
        """Tell those who wait for operations, and then of what they bring about."""

        def tell() -> None:
            for operation in operations:
                operation.tell()
            self.listener.on_effects(effects)

        self.tell(tell)

    def report(self, complaint: str) -> None:
        """Say what is wrong with the file, or with an empty text that nothing is; only if that is news."""
        if bool(complaint) != bool(self._complaint):
            self.tell(lambda: self.listener.on_health(complaint))
        self._complaint = complaint
