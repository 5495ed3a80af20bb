"""What micro-framework's README calls tasks.py: a function that is called over RabbitMQ, and who calls it."""

from __future__ import annotations

import logging

import attrs
import trio
from kernel_messaging import RpcClient
from kernel_timer import Tick

from kernel import answers, handles

log = logging.getLogger(__name__)


@answers("*.amqp_rpc_task")
async def amqp_rpc_task(arg1: str, arg2: str, *args: object, **kwargs: object) -> str:
    """Return what it was called with, as text."""
    await trio.lowlevel.checkpoint()
    return f"{arg1} {arg2} {args} {kwargs}"


class Class:
    """Its methods are targets too."""

    @answers("*.Class.class_method")
    async def class_method(self, payload: dict[str, int]) -> int:
        """Add up."""
        await trio.lowlevel.checkpoint()
        return sum(payload.values())


@attrs.frozen(kw_only=True)
class CallerConfig:
    """The `config` table of the caller."""

    service: str
    """Whom it calls."""


class Caller:
    """Calls a service each time the timer ticks."""

    def __init__(self, rpc: RpcClient, config: CallerConfig) -> None:
        self.service = rpc[config.service]

    @handles("#")
    async def amqp_rpc_caller(self, tick: Tick) -> None:
        """Ask what there is, then make two calls at a time."""
        log.info("there are %s", await self.service["__list_targets__"]())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._call, "argument1", "argument2")
            nursery.start_soon(self._call, "argument3", "argument4")

    async def _call(self, first: str, second: str) -> None:
        answer = await self.service.amqp_rpc_task(first, second, "additional_arg", and_kwargs="too")
        log.info("the answer is %s", answer)
