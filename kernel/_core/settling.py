"""The way of an outcome for which a broker has to send something: at once, then in a task of its own, until it is sent.

So what was handled is not handled again since a message could not be sent. Public through `kernel.abc`.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Generic, TypeVar, final

import attrs

from ..errors import UnknownOutcomeError
from .envelope import Outcome, Return
from .settlements import Settlement, Settlements

DeliveryT = TypeVar("DeliveryT")
SettlementT = TypeVar("SettlementT", bound=Settlement[Any])

PATIENCE: Final = 4.0
"""Seconds that whoever settles waits until an outcome has been sent; the kernel waits a second longer."""
_BACKOFF_INITIAL: Final = 0.25
_BACKOFF_MAX: Final = 10.0
"""Seconds between two tries to send an outcome, at first and at most."""


class Settler(ABC, Generic[DeliveryT, SettlementT]):
    """What a plugin does for an outcome, over whatever brought the delivery: a connection, a channel, a link."""

    __slots__ = ()

    @abstractmethod
    def is_here(self, delivery: DeliveryT) -> bool:
        """Whether what brought a delivery is still there; if not, the broker delivers it again."""

    @abstractmethod
    async def send(self, delivery: DeliveryT, outcome: Outcome, settlement: SettlementT) -> None:
        """Send what an outcome needs, and call `settlement.written` once the broker may have it.

        Raises:
            Exception: if it cannot be sent; `give_up` is told.

        Cancellation: If cancelled, it may or may not have been sent.
        """

    @abstractmethod
    async def send_note(self, delivery: DeliveryT, settlement: SettlementT) -> None:
        """Send the copy of a delivery with the note that it came again; as `send`, but `put_back` is told."""

    @abstractmethod
    def acknowledge(self, delivery: DeliveryT, settlement: SettlementT) -> None:
        """Be done with a delivery, after the broker has taken what was sent for it.

        Raises:
            UnknownOutcomeError: if what brought it is gone.
        """

    @abstractmethod
    def give_up(self, delivery: DeliveryT, outcome: Outcome, error: Exception) -> bool:
        """Have the broker put a delivery aside whose outcome never can be sent; return False if it can, another time.

        Raises: as `acknowledge`.
        """

    @abstractmethod
    def put_back(self, delivery: DeliveryT, error: Exception | None) -> None:
        """Hand a delivery out as it came, since there is no copy: it could not be sent, or not in time.

        Raises: as `acknowledge`.
        """

    @abstractmethod
    def forget(self, delivery: DeliveryT) -> UnknownOutcomeError:
        """Have a delivery no more in hand that comes again; return what says so."""


@final
@attrs.define(eq=False, repr=False)
class Settling(Generic[DeliveryT, SettlementT]):
    """Sends the outcomes of one consumer. Not safe to share between threads."""

    _settler: Settler[DeliveryT, SettlementT]
    _settlements: Settlements
    _start: Callable[[Callable[[], Awaitable[None]]], None]
    """Starts a task that lives as long as the driver."""
    _make: Callable[[], SettlementT]
    _telling: dict[SettlementT, DeliveryT] = attrs.field(factory=dict[SettlementT, DeliveryT], init=False)
    """What goes on in tasks of its own; no more than were delivered and not settled."""

    async def settle(self, delivery: DeliveryT, outcome: Outcome) -> None:
        """Send what an outcome needs and be done with the delivery; what takes longer than 4 s goes on by itself.

        Raises:
            UnknownOutcomeError: if what brought the delivery is gone.

        Cancellation: Is a checkpoint. If cancelled, it goes on by itself.
        """
        import trio  # noqa: PLC0415  who plans needs none

        self._check(delivery)
        settlement, is_over = self._make(), False
        try:
            with trio.move_on_after(PATIENCE):
                is_over = await self._tell(delivery, outcome, settlement)
        except trio.Cancelled:
            self._go_on(delivery, settlement, partial(self._tell_again, delivery, outcome, settlement))
            raise
        if not is_over:
            self._go_on(delivery, settlement, partial(self._tell_again, delivery, outcome, settlement))

    def give_back(self, delivery: DeliveryT) -> None:
        """Give back by a copy, in a task of its own, what would be counted if it came again as it is."""
        settlement = self._make()
        self._go_on(delivery, settlement, partial(self._give_back, delivery, settlement))

    def note(self, delivery: DeliveryT) -> None:
        """Have a delivery come again with a note that counts, in a task of its own, or hand it out as it is.

        Once the broker may have the copy, its answer is waited for however long it takes: who handed the message out as
        well would have it handled twice.
        """
        settlement = self._make()
        self._go_on(delivery, settlement, partial(self._note, delivery, settlement))

    def lose(self) -> None:
        """End what goes on for deliveries that are no more here: nothing is to be sent for what comes again."""
        for settlement, delivery in self._telling.items():
            if not self._settler.is_here(delivery):
                settlement.scope.cancel()

    def _go_on(self, delivery: DeliveryT, settlement: SettlementT, work: Callable[[], Awaitable[None]]) -> None:
        self._settlements.expect(settlement)
        self._telling[settlement] = delivery
        self._start(partial(self._run, delivery, settlement, work))

    async def _run(  # noqa: ASYNC910  what brought it may be gone
        self, delivery: DeliveryT, settlement: SettlementT, work: Callable[[], Awaitable[None]]
    ) -> None:
        try:
            with self._settlements.running(settlement), suppress(UnknownOutcomeError):  # it comes again
                await work()
        finally:
            del self._telling[settlement]
        if settlement.scope.cancelled_caught:
            self._settler.forget(delivery)

    async def _tell_again(self, delivery: DeliveryT, outcome: Outcome, settlement: SettlementT) -> None:
        """Send an outcome again and again; nothing of which the broker has, or may still take, what was sent before."""
        import trio  # noqa: PLC0415  as above

        wait, settlement.is_kept = _BACKOFF_INITIAL, True
        if await settlement.is_taken():
            self._settler.acknowledge(delivery, settlement)
            return
        while True:
            self._check(delivery)
            await trio.sleep(wait * random.uniform(0.5, 1.0))
            self._check(delivery)
            if await self._tell(delivery, outcome, settlement):
                return
            wait = min(2 * wait, _BACKOFF_MAX)

    async def _tell(self, delivery: DeliveryT, outcome: Outcome, settlement: SettlementT) -> bool:
        """Send an outcome and be done with the delivery; return False if that has to be tried again."""
        settlement.receipt = None
        try:
            await self._settler.send(delivery, outcome, settlement)
        except Exception as error:  # noqa: BLE001  whatever it is, the message must not be handled again for it
            settlement.receipt = None
            self._check(delivery)
            return self._settler.give_up(delivery, outcome, error)  # noqa: ASYNC910  it comes from the broker
        self._settler.acknowledge(delivery, settlement)
        return True

    async def _give_back(self, delivery: DeliveryT, settlement: SettlementT) -> None:
        if not await self._tell(delivery, Return(), settlement):
            await self._tell_again(delivery, Return(), settlement)

    async def _note(self, delivery: DeliveryT, settlement: SettlementT) -> None:  # noqa: ASYNC910  as above
        import trio  # noqa: PLC0415  as above

        failure: Exception | None = None
        with trio.move_on_after(PATIENCE) as settlement.limit:
            try:
                await self._settler.send_note(delivery, settlement)
            except Exception as error:  # noqa: BLE001  as above
                failure = error
            else:
                self._settler.acknowledge(delivery, settlement)
                return  # noqa: ASYNC910  it comes from the broker
        self._check(delivery)
        self._settler.put_back(delivery, failure)

    def _check(self, delivery: DeliveryT) -> None:
        if not self._settler.is_here(delivery):
            raise self._settler.forget(delivery)
