"""What handlers give back for another time is kept for a while: its source would bring it again at once, and for ever."""

from __future__ import annotations

from typing import Final, final

import attrs
import trio

FIRST: Final = 0.1
"""Seconds for which the first is kept; each one after it, with none between that was handled, twice as long as before."""
MOST: Final = 5.0
_DOUBLINGS: Final = 10


@final
@attrs.define(eq=False, repr=False)
class NotNow:
    """Keeps what the handlers of one dispatcher give back."""

    in_a_row: int = 0
    """How many were given back, with none between that was handled."""
    _waiting: set[trio.CancelScope] = attrs.field(factory=set[trio.CancelScope], init=False)
    _is_over: bool = attrs.field(default=False, init=False)

    async def wait(self) -> None:
        """Wait for as long as the next one is kept, or until `end`.

        Cancellation: Is a checkpoint, and shielded: the deadline of the handler that gave it back is none of it.
        """
        seconds = min(FIRST * 2.0**self.in_a_row, MOST)
        self.in_a_row = min(self.in_a_row + 1, _DOUBLINGS)
        with trio.move_on_after(0.0 if self._is_over else seconds, shield=True) as scope:
            self._waiting.add(scope)
            try:
                await trio.sleep_forever()
            finally:
                self._waiting.discard(scope)

    def end(self) -> None:
        """Keep nothing any longer: the dispatcher is to stop."""
        self._is_over = True
        for scope in self._waiting:
            scope.cancel()
