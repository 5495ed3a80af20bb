"""Shiva's example worker, which counts what comes in, and one that sends it something to count."""

from __future__ import annotations

import logging

import attrs
import trio
from kernel_bpm import Routed
from kernel_messaging import Publisher

from kernel import handles

log = logging.getLogger(__name__)


class RmqBench:
    """Counts messages; every hundredth is replied to."""

    def __init__(self) -> None:
        self.seen = 0

    @handles("shiva.bench")
    async def bench(self, message: dict[str, object]) -> dict[str, object] | None:
        """Count one message. What is returned is published as `shiva.bench_reply`; nothing is no reply."""
        await trio.lowlevel.checkpoint()
        number = message["number"]
        self.seen += 1
        return {"seen": self.seen, "last": number} if self.seen % 100 == 0 else None


@attrs.frozen(kw_only=True)
class FloodConfig:
    """The `config` table of the worker."""

    messages: int = attrs.field(default=100, validator=attrs.validators.ge(0))
    """How many are sent."""


class Flood:
    """Sends messages, from ten tasks."""

    def __init__(self, esb: Publisher, config: FloodConfig) -> None:
        self.esb = esb
        self.config = config

    async def run(self) -> None:
        """Send all of them, and end."""
        async with trio.open_nursery() as nursery:
            for task in range(10):
                nursery.start_soon(self._send, range(task, self.config.messages, 10))
        log.info("%d messages sent", self.config.messages)

    async def _send(self, numbers: range) -> None:
        await trio.lowlevel.checkpoint()
        for number in numbers:
            await self.esb.publish("shiva.bench", Routed(system_to="shiva_benchmark", params={"number": number}))
