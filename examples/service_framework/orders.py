"""What service-framework's README calls a service and a leading edge service: one answers, and one asks."""

from __future__ import annotations

import logging
from typing import Protocol

import trio

from kernel import answers

log = logging.getLogger(__name__)


class Desk(Protocol):
    """What the customer expects of the desk: `connections` of its side, the models of arguments and return arguments."""

    async def cancel_order(self, *, order_id: str) -> dict[str, str]:
        """Cancel an order."""
        ...


@answers("cancel_order")
async def on_new_cancel_order(order_id: str) -> dict[str, str]:
    """Cancel an order; its arguments and its return arguments are checked by their annotations."""
    await trio.lowlevel.checkpoint()
    return {"order_id": order_id}


async def main(desk: Desk) -> None:
    """Cancel one order: `to_send("cancel_order", {"order_id": "..."})`."""
    answer = await desk.cancel_order(order_id="b5d5")
    log.info("cancelled %s", answer)
