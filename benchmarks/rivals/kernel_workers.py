"""The workers of the kernel's side: the same handlers and the same loops as those of the rivals."""

from __future__ import annotations

import os

import trio
from _meter import Meter
from kernel_messaging import Publisher, RpcClient

from kernel import Arguments, answers

TASKS = 50
CALLERS = 16
ORDER = {"id": 12345, "sku": "tea", "quantity": 2, "note": "x" * 150}


class Count:
    """Handles what a queue was filled with."""

    def __init__(self) -> None:
        self.meter = Meter(int(os.environ["BENCH_COUNT"]), every=int(os.environ.get("BENCH_EVERY", "0")))

    async def __call__(self, order: dict[str, object]) -> None:
        assert order["sku"] == "tea"
        await trio.lowlevel.checkpoint()
        self.meter.tick()


class Publish:
    """50 tasks publish; each waits for the confirm of every message."""

    def __init__(self, events: Publisher) -> None:
        self.events = events
        self.count = int(os.environ["BENCH_COUNT"])

    async def run(self) -> None:
        meter = Meter(self.count)
        meter.begin()
        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(self.publish, os.environ["BENCH_QUEUE"])
        meter.finish()
        await trio.sleep_forever()

    async def publish(self, subject: str) -> None:  # noqa: ASYNC910  there is something to publish
        for _ in range(self.count // TASKS):
            await self.events.publish(subject, ORDER)


class Add:
    """What is called."""

    @answers("sum.add")
    async def add(self, a: int, b: int) -> int:
        await trio.lowlevel.checkpoint()
        return a + b


class Call:
    """16 tasks call; each waits for every answer."""

    def __init__(self, sums: RpcClient) -> None:
        self.sums = sums
        self.count = int(os.environ["BENCH_COUNT"])

    async def run(self) -> None:
        assert await self.sums.call("sum.add", Arguments((1, 2), {})) == 3  # as Nameko's: the first call connects
        meter = Meter(self.count)
        meter.begin()
        async with trio.open_nursery() as nursery:
            for _ in range(CALLERS):
                nursery.start_soon(self.calls)
        meter.finish()
        await trio.sleep_forever()

    async def calls(self) -> None:  # noqa: ASYNC910  there is something to call
        for number in range(self.count // CALLERS):
            if await self.sums.call("sum.add", Arguments((number, 1), {})) != number + 1:
                raise AssertionError("a wrong answer")
