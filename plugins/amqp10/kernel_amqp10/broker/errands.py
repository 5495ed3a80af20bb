"""What is sent before a delivery is settled, where that goes on in a task of its own: until the end of the driver."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, final

import attrs
import trio

from ..link.sender import Said, Sent

_LAST_WAIT: Final = 2.0
"""Seconds that the end of the driver waits for the answer to what the broker may have: else it would be there twice."""


@final
@attrs.define(eq=False, repr=False)
class Errand:
    """One message that is sent for a delivery."""

    receipt: Sent | None = None
    """Of what the broker may have; None as long as nothing was written."""
    is_kept: bool = False
    """Whether it waits for a time at which it can be sent."""
    scope: trio.CancelScope = attrs.field(init=False)
    """Of the task that goes on with it; most need none, and to make one costs as much as all the rest of it."""

    def written(self, receipt: Sent) -> None:
        """Take note that the broker may have the message."""
        self.receipt = receipt

    async def is_taken(self) -> bool:
        """Wait for the answer to what was written, if something was; return whether the broker has taken it.

        Cancellation: Is a checkpoint if it has to wait.
        """
        if self.receipt is None:
            return False  # noqa: ASYNC910  whoever asks goes on to send
        await self.receipt.wait()
        return self.receipt.said is Said.ACCEPTED

    @property
    def is_hopeful(self) -> bool:
        """Whether it will soon be over, or the broker may have its message: to cancel that would have it there twice."""
        return self.receipt is not None or not self.is_kept


@final
@attrs.define(eq=False, repr=False)
class Errands:
    """Those of one driver that have a task of their own."""

    _running: set[Errand] = attrs.field(factory=set[Errand], init=False)
    """No more than there are deliveries that were not settled."""
    _over: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    @contextmanager
    def running(self, errand: Errand) -> Generator[None]:
        """Know of an errand for the time of the block, which ends when the errand is cancelled."""
        self._running.add(errand)
        errand.scope = trio.CancelScope()
        try:
            with errand.scope:
                yield
        finally:
            self._running.discard(errand)
            if not self._running:
                self._over.unpark_all()

    async def aclose(self) -> None:
        """Wait for those that will soon be over; the messages of all others go back.

        Cancellation: Shielded for at most 2 s.
        """
        for errand in self._running:
            if not errand.is_hopeful:
                errand.scope.cancel()
        with trio.move_on_after(_LAST_WAIT, shield=True):
            while self._running:
                await self._over.park()
        await trio.lowlevel.cancel_shielded_checkpoint()
