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

from ..core import Frame
from .crashes import is_noted
from .letters import Letter


class Desk(ABC):
    """Where deliveries are settled: the connection that brought them."""

    __slots__ = ()

    @abstractmethod
    def read(self, frame: Frame) -> Letter:
        """Return what a message means."""

    @abstractmethod
    def settle_nowait(self, delivery: StompDelivery, outcome: Outcome) -> bool:
        """Settle, if that takes no waiting; return whether it was done."""

    @abstractmethod
    async def settle(self, delivery: StompDelivery, outcome: Outcome) -> None:
        """Settle."""


@final
@attrs.define(eq=False, repr=False)
class StompDelivery(Delivery):
    """One message on its way to a consumer. What it says is read when somebody asks."""

    frame: Frame
    desk: Desk
    settled: bool = attrs.field(default=False, init=False)
    _letter: Letter | None = attrs.field(default=None, init=False)

    @property
    @override
    def envelope(self) -> Envelope:
        return (self._letter or self._read()).envelope

    @property
    @override
    def attempt(self) -> int:
        return (self._letter or self._read()).attempts + 1

    @property
    @override
    def redelivered(self) -> bool:
        headers = self.frame.headers
        return headers.get("redelivered") == "true" or is_noted(headers) or self.attempt > 1

    @property
    @override
    def sent(self) -> float | None:
        headers = self.frame.headers
        told = headers.get("timestamp_in_ms") or headers.get("timestamp")  # of RabbitMQ; of it, or of ActiveMQ
        return None if told is None else read_sent(told, now=trio.current_time(), wall=time.time())

    @override
    def settle_nowait(self, outcome: Outcome) -> bool:
        if self.settled:
            raise self._twice()
        return self.desk.settle_nowait(self, outcome)

    @override
    async def settle(self, outcome: Outcome) -> None:
        if self.settled:
            await trio.lowlevel.checkpoint()
            raise self._twice()
        await self.desk.settle(self, outcome)

    def _read(self) -> Letter:
        self._letter = self.desk.read(self.frame)
        return self._letter

    def _twice(self) -> SettledError:
        return SettledError(f"delivery {self.envelope.id} was settled twice")
