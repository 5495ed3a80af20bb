"""What micro-framework's README calls tasks.py: a function that is called over a websocket, and who calls it."""

from __future__ import annotations

import logging

import trio
from kernel_timer import Tick
from kernel_websocket import WebSocketClient

from kernel import answers, handles

log = logging.getLogger(__name__)


@answers("*.websocket_task")
async def websocket_task(arg1: str, arg2: str) -> str:
    """Return both, as one text."""
    log.info("called with %s and %s", arg1, arg2)
    await trio.lowlevel.checkpoint()
    return f"{arg1} - {arg2}"


class Caller:
    """Calls the service each time the timer ticks."""

    def __init__(self, rpc: WebSocketClient) -> None:
        self.service = rpc.my_service

    @handles("#")
    async def websocket_caller(self, tick: Tick) -> None:
        """Ask what there is, then make two calls, which the connection carries one after the other."""
        log.info("there are %s", await self.service["__list_targets__"]())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._call, "argument1", "argument2")
            nursery.start_soon(self._call, "argument3", "argument4")

    async def _call(self, first: str, second: str) -> None:
        log.info("the answer is %s", await self.service.websocket_task(first, second))
