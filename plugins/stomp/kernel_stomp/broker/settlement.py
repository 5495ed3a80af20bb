"""What is sent over this transport before a delivery is settled."""

from __future__ import annotations

from contextlib import suppress
from typing import final

import attrs
from typing_extensions import override

from kernel.abc import Settlement

from .._errors import LateError, LinkLostError
from ..link.receipts import Receipt


@final
@attrs.define(eq=False, repr=False)
class StompSettlement(Settlement[Receipt]):
    """One message that is sent for a delivery."""

    acknowledges: bool = False
    """Whether the message that it comes from is acknowledged with it, in one transaction."""

    @override
    async def is_taken(self) -> bool:
        if self.receipt is None:
            return False  # noqa: ASYNC910  whoever asks goes on to send
        with suppress(LinkLostError, LateError):
            await self.receipt.wait()
            return True
        return False  # noqa: ASYNC910  it comes from the wait
