"""Outcomes that a broker has to send before a delivery is settled, and that may take long; public through `kernel.abc`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

import attrs

if TYPE_CHECKING:
    import trio

ReceiptT = TypeVar("ReceiptT")

LAST_WAIT: Final = 2.0
"""Seconds that the end of a driver waits for the answer to what the broker may have: else it would be there twice."""


@attrs.define(eq=False, repr=False)
class Settlement(ABC, Generic[ReceiptT]):
    """One message that is sent for a delivery, such as a copy or a reply; then the delivery is settled.

    Once the broker may have it, it must not be sent again, and the delivery not be given back, before the broker has
    answered: either would have it handled twice.
    """

    receipt: ReceiptT | None = None
    """What has the broker's answer to what it may have; None as long as nothing was written."""
    is_kept: bool = False
    """Whether it waits for a time at which it can be sent."""
    scope: trio.CancelScope = attrs.field(init=False)
    """Of the task that goes on with it, from `Settlements.expect` on; most need none, and to make one costs as much as all
    the rest of it."""

    limit: trio.CancelScope | None = None
    """What ends the wait as long as nothing was written; None where something else does."""

    @abstractmethod
    async def is_taken(self) -> bool:
        """Wait for the answer to what was written, if something was; return whether the broker has taken it.

        Cancellation: Is a checkpoint if it has to wait.
        """

    def written(self, receipt: ReceiptT) -> None:
        """Take note that the broker may have the message: its answer is waited for however long it takes."""
        self.receipt = receipt
        if self.limit is not None:
            self.limit.deadline = math.inf

    @property
    def is_hopeful(self) -> bool:
        """Whether it will soon be over, or the broker may have its message: it is not to be cancelled."""
        return self.receipt is not None or not self.is_kept


@final
@attrs.define(eq=False, repr=False)
class Settlements:
    """Those of one driver that go on in tasks of their own, until its end."""

    _running: set[Settlement[Any]] = attrs.field(factory=set[Settlement[Any]], init=False)
    """No more than there are deliveries that were not settled."""
    _over: trio.Event | None = attrs.field(default=None, init=False)
    """Whoever waits for the last of them."""

    def expect(self, settlement: Settlement[Any]) -> None:
        """Know of one from here on, whose task is about to begin: a driver that ends first waits for it as well."""
        import trio  # noqa: PLC0415  who plans needs none

        self._running.add(settlement)
        settlement.scope = trio.CancelScope()

    @contextmanager
    def running(self, settlement: Settlement[Any]) -> Generator[None]:
        """Know of one for the time of the block, which ends when its `scope` is cancelled."""
        if settlement not in self._running:
            self.expect(settlement)
        try:
            with settlement.scope:
                yield
        finally:
            self._running.discard(settlement)
            if self._over is not None and not self._running:
                self._over.set()

    async def aclose(self) -> None:
        """Wait for those that will soon be over; all others are cancelled, and their messages go back.

        Cancellation: Shielded for at most 2 s.
        """
        import trio  # noqa: PLC0415  as above

        for settlement in self._running:
            if not settlement.is_hopeful:
                settlement.scope.cancel()
        with trio.move_on_after(LAST_WAIT, shield=True):
            while self._running:
                self._over = trio.Event()
                await self._over.wait()
        await trio.lowlevel.cancel_shielded_checkpoint()
