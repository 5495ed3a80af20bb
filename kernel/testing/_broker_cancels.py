"""Cases of `check_broker`: cancellation at every checkpoint, and many tasks at once."""

from __future__ import annotations

import trio

from .._core.envelope import Ack, Envelope
from ..abc import Binding, Exchange, Queue, Topology
from ._broker_bench import QUIET, Bench, Promise, cut, text_of


async def _send(bench: Bench) -> None:
    queue = await bench.queue()
    sent: list[str] = []
    at = 0

    async def send() -> None:
        await bench.put(queue, str(at))
        sent.append(str(at))

    while await cut(send, at):
        at += 1
    got = await bench.drain(queue)

    assert len(got) == len(set(got)), f"sent twice: {got}"
    assert set(sent) <= set(got), f"{sent} were sent, {got} came"


async def _take(bench: Bench) -> None:
    queue = await bench.queue()
    got: list[str] = []
    at = 0
    going = True
    while going:
        await bench.put(queue, str(at))
        going = await _take_cut(bench, queue, at, got)
        at += 1
    got += await bench.drain(queue)

    assert sorted(got) == sorted(map(str, range(at))), f"{at} messages were sent, {got} came"


async def _take_cut(bench: Bench, queue: str, at: int, got: list[str]) -> bool:
    async with bench.consume(queue, prefetch=1) as deliveries:

        async def take_one() -> None:
            delivery = await anext(deliveries)
            got.append(text_of(delivery))
            with trio.CancelScope(shield=True):
                await delivery.settle(Ack())

        return await cut(take_one, at)


async def _wait(bench: Bench) -> None:
    """A message that comes in the moment in which its consumer is cancelled."""
    queue = await bench.queue()
    got: list[str] = []
    async with bench.consume(queue, prefetch=1) as deliveries, trio.open_nursery() as nursery:

        async def wait() -> None:
            delivery = await anext(deliveries)
            got.append(text_of(delivery))
            with trio.CancelScope(shield=True):
                await delivery.settle(Ack())

        nursery.start_soon(wait)
        await trio.sleep(QUIET)
        await bench.put(queue, "a")
        nursery.cancel_scope.cancel()
    got += await bench.drain(queue)

    assert got == ["a"], f"one message was sent, {got} came"


async def _subscribe(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "a")
    at = 0

    async def visit() -> None:
        async with bench.consume(queue):
            pass

    while await cut(visit, at):
        at += 1

    assert await bench.drain(queue) == ["a"]


async def _declare(bench: Bench) -> None:
    queue = Queue(name=bench.name("queue"), durable=bench.durable)
    exchange = Exchange(name=bench.name("ex"), durable=bench.durable)
    binding = Binding(queue=queue.name, exchange=exchange.name, pattern="#")
    topology = Topology(exchanges=[exchange], queues=[queue], bindings=[binding])
    at = 0

    async def declare() -> None:
        await bench.broker.declare(topology)

    while await cut(declare, at):
        at += 1
    await bench.broker.send(Envelope(subject="any", body=b"a"), exchange=exchange.name, mandatory=True)

    assert await bench.drain(queue.name) == ["a"]


async def _many_tasks(bench: Bench) -> None:
    queue = await bench.queue()
    wanted = sorted(f"{sender}-{number}" for sender in range(4) for number in range(25))
    got: list[str] = []
    async with trio.open_nursery() as nursery:

        async def send(sender: int) -> None:
            await bench.put(queue, *(f"{sender}-{number}" for number in range(25)))

        async def consume() -> None:
            async with bench.consume(queue, prefetch=5) as deliveries:
                async for delivery in deliveries:
                    await delivery.settle(Ack())
                    got.append(text_of(delivery))
                    if len(got) >= len(wanted):
                        nursery.cancel_scope.cancel()

        for sender in range(4):
            nursery.start_soon(send, sender)
        for _ in range(3):
            nursery.start_soon(consume)
    got += await bench.drain(queue)

    assert sorted(got) == wanted, f"{len(wanted)} were sent, {len(got)} came, {len(set(got))} of them different"


CANCELS = (
    Promise("a cancelled send sends once or not at all", _send),
    Promise("a cancelled wait for a delivery loses nothing", _take),
    Promise("a message that meets a cancelled consumer is not lost", _wait),
    Promise("a cancelled subscribe leaves nothing behind", _subscribe),
    Promise("a cancelled declare can be repeated", _declare),
    Promise("many tasks may send and consume at once", _many_tasks),
)
