"""One attempt to hand a message over; whoever brought it settles it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import final

import attrs
import trio
from typing_extensions import override

from kernel import Envelope, Outcome
from kernel.abc import Delivery, read_sent
from kernel.errors import SettledError

from ..link.receiver import Arrived
from .letters import Letter


class Desk(ABC):
    """What settles the deliveries that it brought."""

    __slots__ = ()

    @abstractmethod
    def settle_nowait(self, delivery: Amqp10Delivery, outcome: Outcome) -> bool:
        """Settle as `Delivery.settle_nowait`."""

    @abstractmethod
    async def settle(self, delivery: Amqp10Delivery, outcome: Outcome) -> None:
        """Settle as `Delivery.settle`."""


@final
@attrs.define(eq=False, repr=False)
class Amqp10Delivery(Delivery):
    """A message on its way to a handler."""

    arrived: Arrived
    letter: Letter
    _desk: Desk
    settled: bool = attrs.field(default=False, init=False)
    """Whether its outcome was taken."""

    @property
    @override
    def envelope(self) -> Envelope:
        return self.letter.envelope

    @property
    @override
    def attempt(self) -> int:
        return self.letter.attempts + 1

    @property
    @override
    def redelivered(self) -> bool:
        return self.letter.is_again or self.letter.attempts > 0 or self.letter.note is not None

    @property
    @override
    def sent(self) -> float | None:
        return read_sent(self.letter.sent, now=trio.current_time(), wall=time.time())

    @override
    def settle_nowait(self, outcome: Outcome) -> bool:
        self._check()
        return self._desk.settle_nowait(self, outcome)

    @override
    async def settle(self, outcome: Outcome) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check()
        await self._desk.settle(self, outcome)

    def _check(self) -> None:
        if self.settled:
            raise SettledError(f"delivery {self.envelope.id} was settled already")
