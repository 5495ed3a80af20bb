"""A delivery that is another one seen differently: what is not overridden is the original's."""

from __future__ import annotations

import attrs
from typing_extensions import override

from ._broker import Delivery
from ._envelope import Envelope, Outcome


@attrs.frozen(eq=False)
class Relay(Delivery):
    """Passes on what another delivery says, and settles that one."""

    original: Delivery

    @property
    @override
    def envelope(self) -> Envelope:
        return self.original.envelope

    @property
    @override
    def attempt(self) -> int:
        return self.original.attempt

    @property
    @override
    def redelivered(self) -> bool:
        return self.original.redelivered

    @override
    async def settle(self, outcome: Outcome) -> None:
        await self.original.settle(outcome)
