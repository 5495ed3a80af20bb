"""One attempt to hand a message over."""

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

from ..core import Delivered
from .crashes import is_noted
from .letters import read_letter, sent_at


class Desk(ABC):
    """Where deliveries are settled: the channel that brought them."""

    __slots__ = ()

    @abstractmethod
    def settle_nowait(self, delivery: AmqpDelivery, outcome: Outcome) -> bool:
        """Settle, if that takes no waiting; return whether it was done."""

    @abstractmethod
    async def settle(self, delivery: AmqpDelivery, outcome: Outcome) -> None:
        """Settle."""


@final
@attrs.define(eq=False, repr=False)
class AmqpDelivery(Delivery):
    """One message on its way to a consumer. What it says is read when somebody asks."""

    event: Delivered
    desk: Desk
    again: int = 0
    """Attempts in this process before, which the message itself does not tell of."""
    returned: bool = False
    """Whether it was handed out in this process before."""
    key: str | None = None
    """What orders it among others; None for nothing."""
    order: int = 0
    """Grows from message to message."""
    settled: bool = attrs.field(default=False, init=False)
    _envelope: Envelope | None = attrs.field(default=None, init=False)
    _behind: int = attrs.field(default=0, init=False)

    @property
    @override
    def envelope(self) -> Envelope:
        return self._envelope or self._read()

    @property
    @override
    def attempt(self) -> int:
        if self._envelope is None:
            self._read()
        return self._behind + self.again + 1

    @property
    @override
    def redelivered(self) -> bool:
        return self.event.redelivered or self.returned or is_noted(self.event) or self.attempt > 1

    @property
    @override
    def sent(self) -> float | None:
        told = sent_at(self.event.properties)
        return None if told is None else read_sent(told, now=trio.current_time(), wall=time.time())

    @override
    def settle_nowait(self, outcome: Outcome) -> bool:
        if self.settled:
            raise _settled(self)
        return self.desk.settle_nowait(self, outcome)

    @override
    async def settle(self, outcome: Outcome) -> None:
        if self.settled:
            await trio.lowlevel.checkpoint()
            raise _settled(self)
        await self.desk.settle(self, outcome)

    def _read(self) -> Envelope:
        now = trio.current_time() if self.event.properties.headers else 0.0  # for the deadline, which is a header
        self._envelope, self._behind = read_letter(self.event, now=now)
        return self._envelope

    def next(self, *, attempts: int) -> AmqpDelivery:
        """Return the delivery of the same message that follows this one in this process."""
        following = AmqpDelivery(self.event, self.desk, self.again + attempts, True, self.key, self.order)  # noqa: FBT003
        # What was read stays: the deadline is counted from the arrival.
        following._envelope, following._behind = self._envelope, self._behind
        return following


def _settled(delivery: AmqpDelivery) -> SettledError:
    return SettledError(f"delivery {delivery.envelope.id} was settled twice")
