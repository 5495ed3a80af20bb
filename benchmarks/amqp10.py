"""Compares the plugin amqp10 with qpid-proton's own blocking client, in turns, on a RabbitMQ node of its own.

Each turn sends a number of messages, each accepted by the broker before it counts as sent, and takes and accepts them
again. The blocking client does one thing at a time, as it is made for; ours is measured the same way, and with many at
a time, as a service has them. Needs `rabbitmq-server` and the engine: `uv sync --group engine`.

    uv run python benchmarks/amqp10.py [--messages 2000] [--turns 5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

sys.path.insert(0, str(Path(__file__).parent.parent))

from kernel import Ack, Envelope, new_id
from kernel.abc import Broker, Queue, Subscription, Topology
from tests.amqp._node import scripts
from tests.amqp10._node import Amqp10Node, running

BODY: Final = b'{"order": 4711, "sku": "tea", "quantity": 2}'
PREFETCH: Final = 100
AT_A_TIME: Final = 20
NEEDED: Final = 1.5


async def send(broker: Broker, queue: str, count: int, tasks: int) -> None:
    numbers = iter(range(count))

    async def some() -> None:
        await trio.lowlevel.checkpoint()
        for _ in numbers:
            await broker.send(Envelope(subject=queue, body=BODY), exchange="", mandatory=True)

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(some)


async def take(broker: Broker, queue: str, count: int) -> None:
    left = count
    await trio.lowlevel.checkpoint()
    async with broker.subscribe(Subscription(queue=queue, prefetch=PREFETCH)) as deliveries:
        async for delivery in deliveries:
            if not delivery.settle_nowait(Ack()):
                await delivery.settle(Ack())
            left -= 1
            if not left:
                break


def blocking(node: Amqp10Node, queue: str, count: int) -> tuple[float, float]:
    """Return the seconds that qpid-proton's blocking client takes to send, and to take."""
    from proton import Message  # noqa: PLC0415  compiled, and not always there
    from proton.utils import BlockingConnection  # noqa: PLC0415

    connection = BlockingConnection(
        f"amqp://guest:guest@{node.node.address}", timeout=30, allowed_mechs="PLAIN", allow_insecure_mechs=True
    )
    address = f"/amq/queue/{queue}"
    sender, began = connection.create_sender(address), time.perf_counter()
    for _ in range(count):
        sender.send(Message(body=BODY, inferred=True, durable=True, id=new_id(), subject=queue))
    sent = time.perf_counter() - began
    receiver, began = connection.create_receiver(address, credit=PREFETCH), time.perf_counter()
    for _ in range(count):
        receiver.receive(timeout=30)
        receiver.accept()
    taken = time.perf_counter() - began
    connection.close()
    return sent, taken


async def timed(action: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await action()
    return time.perf_counter() - began


async def turn(node: Amqp10Node, broker: Broker, count: int, rates: dict[str, list[float]]) -> None:
    queue = f"bench.{new_id()}"
    await broker.declare(Topology(queues=[Queue(name=queue)]))
    seconds = {
        "ours, one at a time": await timed(lambda: send(broker, queue, count, 1)),
        f"ours, {AT_A_TIME} at a time": await timed(lambda: send(broker, queue, count, AT_A_TIME)),
    }
    taken = await timed(lambda: take(broker, queue, 2 * count)) / 2
    sent, blocked = await trio.to_thread.run_sync(blocking, node, queue, count)
    for name, took in {
        **{f"send: {name}": took for name, took in seconds.items()},
        "send: blocking client": sent,
        "take: ours": taken,
        "take: blocking client": blocked,
    }.items():
        rates.setdefault(name, []).append(count / took)


async def compare(count: int, turns: int) -> bool:
    programs = scripts()
    if programs is None:
        sys.exit("amqp10.py needs rabbitmq-server; on Debian: apt install rabbitmq-server")
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="amqp10-") as folder, running(Path(folder), programs) as node:
        async with node.open() as broker:
            for number in range(turns + 1):
                await turn(node, broker, count, rates if number else {})  # the first one warms up
    middle = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in middle.items():
        rival = middle[f"{name[:5]} blocking client"]
        print(f"{name:28} {rate:8,.0f} messages/s, {rate / rival:.2f} times the blocking client")
    ours = 1 / middle[f"send: ours, {AT_A_TIME} at a time"] + 1 / middle["take: ours"]
    theirs = 1 / middle["send: blocking client"] + 1 / middle["take: blocking client"]
    print(f"{'sent and taken: ours':28} {1 / ours:8,.0f} messages/s, {theirs / ours:.2f} times the blocking client")
    return theirs / ours >= NEEDED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    sys.exit(not trio.run(compare, arguments.messages, arguments.turns))


if __name__ == "__main__":
    main()
