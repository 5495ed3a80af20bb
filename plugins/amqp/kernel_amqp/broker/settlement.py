"""What is sent over this transport before a delivery is settled, and how long whoever settles waits for that."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, final

import attrs
import trio
from typing_extensions import override

from kernel.abc import Settlement

from ..link.receipts import Receipt

PATIENCE: Final = 4.0
"""Seconds that whoever settles waits until an outcome has been sent; the kernel waits a second longer."""


@final
@attrs.define(eq=False, repr=False)
class Patience:
    """Ends waits for receipts after `PATIENCE`.

    All of them have one clock: a scope with a deadline for each costs more than all else that an answer needs.
    """

    _start: Callable[[Callable[[], Awaitable[None]]], None]
    """Starts a task that lives as long as the driver."""
    _waits: deque[tuple[float, Receipt]] = attrs.field(factory=deque[tuple[float, Receipt]], init=False)
    """What is waited for and until when, the oldest first; none is left in front that was answered."""
    _is_looking: bool = attrs.field(default=False, init=False)

    def bound(self, receipt: Receipt) -> None:
        """Have the next wait for a receipt end in time."""
        receipt.is_bounded = True
        waits = self._waits
        while waits and waits[0][1].is_answered:
            waits.popleft()
        waits.append((trio.current_time() + PATIENCE, receipt))
        if not self._is_looking:
            self._is_looking = True
            self._start(self._look)

    async def _look(self) -> None:
        """Look as long as there is something; what comes meanwhile is due after the next look."""
        try:
            while self._waits:
                await trio.sleep_until(self._waits[0][0])
                self._give_up()
            await trio.lowlevel.checkpoint()
        finally:
            self._is_looking = False

    def _give_up(self) -> None:
        now = trio.current_time()
        while self._waits and (self._waits[0][0] <= now or self._waits[0][1].is_answered):
            self._waits.popleft()[1].give_up()


@final
@attrs.define(eq=False, repr=False)
class AmqpSettlement(Settlement[Receipt]):
    """One message that is sent for a delivery."""

    patience: Patience | None = None
    """What bounds the wait for the answer; None if a scope does."""

    @override
    def written(self, receipt: Receipt) -> None:
        self.receipt = receipt
        if self.patience is not None:
            self.patience.bound(receipt)

    async def is_taken(self) -> bool:
        """Wait for the answer to what was written, if something was; return whether the broker has taken it.

        Cancellation: Is a checkpoint if it has to wait.
        """
        if self.receipt is None:
            return False  # noqa: ASYNC910  whoever asks goes on to send
        return await self.receipt.wait() is None
