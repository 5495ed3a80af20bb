"""One attempt to hand a message over, and a look at one that nobody has taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import attrs
import trio
from typing_extensions import override

from kernel import Envelope, Outcome, Pace
from kernel.abc import Delivery
from kernel.errors import SettledError

from ._waiting import Entry


@final
@attrs.define(eq=False, repr=False)
class MemoryDelivery(Delivery):
    """One entry on its way to a consumer. What is asked for most often is a field: a property takes five times as long."""

    _entry: Entry
    envelope: Envelope  # pyright: ignore[reportIncompatibleMethodOverride]  it is only read
    attempt: int  # pyright: ignore[reportIncompatibleMethodOverride]  it is only read
    sent: float | None  # pyright: ignore[reportIncompatibleMethodOverride]  it is only read
    _pace: Pace
    _settle: Callable[[Entry, Outcome], None]
    _settled: bool = attrs.field(default=False, init=False)

    @property
    @override
    def redelivered(self) -> bool:
        return self._entry.redelivered

    @override
    async def settle(self, outcome: Outcome) -> None:
        await self._pace.step()
        self.settle_nowait(outcome)

    @override
    def settle_nowait(self, outcome: Outcome) -> bool:
        if self._settled:
            raise SettledError(f"delivery {self.envelope.id} was settled twice")
        self._settled = True
        self._settle(self._entry, outcome)
        return True


@final
@attrs.define(eq=False)
class PeekedDelivery(Delivery):
    """A message that somebody looks at in its queue."""

    _entry: Entry

    @property
    @override
    def envelope(self) -> Envelope:
        return self._entry.envelope

    @property
    @override
    def attempt(self) -> int:
        return self._entry.attempts + 1

    @property
    @override
    def redelivered(self) -> bool:
        return self._entry.redelivered

    @override
    async def settle(self, outcome: Outcome) -> None:
        await trio.lowlevel.checkpoint()
        raise SettledError(f"delivery {self.envelope.id} was only looked at: it is still in its queue")
