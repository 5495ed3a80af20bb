"""What a timer delivers, and what it reports about what it did not deliver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import final

import attrs
import trio
from typing_extensions import override

from kernel import Envelope, Event, Message, Outcome
from kernel.abc import Delivery
from kernel.errors import SettledError


@final
@attrs.frozen(kw_only=True)
class Tick:
    """The payload of a tick."""

    scheduled: datetime
    """The time that the tick stands for, aware of its zone; it may be handled later."""
    missed: int = 0
    """How many scheduled times between this tick and the one before were skipped."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class TickSkipped(Event):
    """Scheduled times passed without a tick, or a tick was not tried again."""

    scheduled: datetime
    """The first of them."""
    count: int
    reason: str


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class TickFailed(Event):
    """A tick was handled in vain for the last time. A timer keeps no dead letters."""

    scheduled: datetime
    reason: str


@final
@attrs.define(eq=False)
class TickDelivery(Delivery):
    """One attempt at a tick. A timer has no source to tell: the outcome is what `Intake.handle` returns."""

    tick: Tick
    _envelope: Envelope
    _attempt: int = 1
    _note: Callable[[Outcome, int], Awaitable[None]] | None = attrs.field(default=None, repr=False)
    """Told of the outcome and the attempt, where other processes must hear of it."""
    _settled: bool = attrs.field(default=False, init=False)

    @property
    @override
    def envelope(self) -> Envelope:
        return self._envelope

    @property
    @override
    def message(self) -> Message:
        return Message(subject=self._envelope.subject, payload=self.tick, headers=self._envelope.headers)

    @property
    @override
    def attempt(self) -> int:
        return self._attempt

    @property
    @override
    def redelivered(self) -> bool:
        return self._attempt > 1

    @override
    async def settle(self, outcome: Outcome) -> None:
        await trio.lowlevel.checkpoint()
        if self._settled:
            raise SettledError(f"tick {self._envelope.id} was settled twice")
        self._settled = True
        if self._note is not None:
            await self._note(outcome, self._attempt)
