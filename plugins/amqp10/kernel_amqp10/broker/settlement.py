"""What is sent over this transport before a delivery is settled."""

from __future__ import annotations

from typing import final

import attrs
from typing_extensions import override

from kernel.abc import Settlement

from ..link.sender import Said, Sent


@final
@attrs.define(eq=False, repr=False)
class Amqp10Settlement(Settlement[Sent]):
    """One message that is sent for a delivery."""

    @override
    async def is_taken(self) -> bool:
        if self.receipt is None:
            return False  # noqa: ASYNC910  whoever asks goes on to send
        await self.receipt.wait()
        return self.receipt.said is Said.ACCEPTED
