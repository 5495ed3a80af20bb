"""What service-framework's README calls a service and a leading edge service: one answers, and one asks."""

from __future__ import annotations

import logging

import trio

from kernel import answers
from kernel.abc import Caller

log = logging.getLogger(__name__)


@answers("cancel_order")
async def on_new_cancel_order(order_id: str) -> dict[str, str]:
    """Cancel an order; its arguments and its return arguments are checked by their annotations."""
    await trio.lowlevel.checkpoint()
    return {"order_id": order_id}


async def main(desk: Caller) -> None:
    """Cancel one order: `to_send("cancel_order", {"order_id": "..."})`."""
    answer = await desk.cancel_order(order_id="b5d5")
    log.info("cancelled %s", answer)
