"""The bound on what waits to be written: who publishes while the peer does not want it waits here for a turn."""

from __future__ import annotations

from typing import Final, final

import attrs
import trio

from kernel import wake

MAX_UNSENT: Final = 1024 * 1024
"""Bytes that may wait to be written before publishes have to wait. One message may exceed it."""
_FRAMING: Final = 128
"""Bytes that a message has besides its body, about."""


@final
@attrs.define(eq=False, repr=False)
class _Wish:
    """A publish that waits for its turn."""

    owner: object
    size: int
    task: trio.lowlevel.Task
    is_granted: bool = False


@final
@attrs.define(eq=False, repr=False)
class Room:
    """What is left for publishes on one connection. Acknowledgements and methods are written without asking."""

    unsent: int = attrs.field(default=0, init=False)
    """Bytes that wait to be written, about; the writer counts them down."""
    is_shut: bool = attrs.field(default=False, init=False)
    """Whether a publish has to wait for its turn: there is no room, or others wait already."""
    blocked: str = attrs.field(default="", init=False)
    """Why the broker takes no messages; empty if it does."""
    _promised: int = attrs.field(default=0, init=False)
    """Bytes of those who may write and have not yet."""
    _wishes: dict[_Wish, None] = attrs.field(factory=dict[_Wish, None], init=False)
    """Those who wait, in their order."""

    def fill(self, size: int) -> None:
        """Say that a message with a body of this many bytes waits to be written."""
        self.unsent += size + _FRAMING
        if self.unsent >= MAX_UNSENT:
            self.is_shut = True

    async def wait_turn(self, owner: object, size: int) -> bool:
        """Wait until a message with a body of this many bytes may be written; first come, first served.

        Returns:
            True if it may: room for it is kept until `redeem` is called. False if its owner was dismissed.

        Cancellation: Is a checkpoint if it has to wait.
        """
        if not self.is_shut:
            self._promised += size + _FRAMING
            return True  # noqa: ASYNC910  whoever asks has had one
        wish = _Wish(owner, size, trio.lowlevel.current_task())
        self._wishes[wish] = None

        def abandon(_: object) -> trio.lowlevel.Abort:
            del self._wishes[wish]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abandon)
        return wish.is_granted

    def redeem(self, size: int) -> None:
        """Give back the room that was kept for a message, whether it was written or not."""
        self._promised -= size + _FRAMING
        self.grant()

    def dismiss(self, owner: object) -> None:
        """Wake those of one owner who wait for their turn: it will not come."""
        for wish in [wish for wish in self._wishes if wish.owner is owner]:
            del self._wishes[wish]
            wake(wish.task)
        self.grant()

    def block(self, reason: str) -> None:
        """Hold publishes back until the broker says otherwise; an empty reason lets them go on."""
        self.blocked = reason
        self.grant()

    def grant(self) -> None:
        """Let as many go on as there is room for."""
        while self._wishes and self._is_left():
            wish = next(iter(self._wishes))
            del self._wishes[wish]
            wish.is_granted = True
            self._promised += wish.size + _FRAMING
            wake(wish.task)
        self.is_shut = bool(self._wishes) or not self._is_left()

    def _is_left(self) -> bool:
        return not self.blocked and self.unsent + self._promised < MAX_UNSENT
