"""How fast one AMQP connection is by itself, without the pipeline: `uv run python benchmarks/amqp_link.py`.

20,000 messages of 200 bytes through RabbitMQ on 127.0.0.1:5672: published by 50 tasks of which each waits for its
confirm, then consumed with prefetch 100, each acknowledged by a task. Prints rate and CPU of this process per message.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import trio
from kernel_amqp.core import Delivered, Properties, Settings, TooLarge
from kernel_amqp.link.channel import LinkChannel
from kernel_amqp.link.connect import LinkSettings
from kernel_amqp.link.link import open_link
from pamqp import commands

from kernel import new_id

COUNT = 20_000
TASKS = 50
PREFETCH = 100
BODY = b"x" * 200
LINK = LinkSettings(hosts=(("127.0.0.1", 5672),), core=Settings(response="\0guest\0guest"))


class Measured:
    """Rate, and CPU time of this process, per message."""

    def __init__(self) -> None:
        self.wall = time.perf_counter()
        self.cpu = time.process_time()

    def show(self, what: str) -> None:
        """Print one line."""
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        print(f"{what:24} {COUNT / wall:8,.0f}/s {cpu / COUNT * 1e6:6.1f} us CPU per message")


async def publish(queue: str, channel: LinkChannel) -> None:
    """Publish from many tasks, each message confirmed."""
    properties = Properties(delivery_mode=1, content_type="application/json")

    async def publisher() -> None:  # noqa: ASYNC910  it publishes at least once
        for _ in range(COUNT // TASKS):
            await channel.publish(exchange="", routing_key=queue, properties=properties, body=BODY)

    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(publisher)


class Inbox:
    """What was delivered and not taken."""

    def __init__(self) -> None:
        self.events: list[Delivered | TooLarge] = []
        self.waiter: trio.lowlevel.Task | None = None

    def put(self, event: Delivered | TooLarge) -> None:
        """Note and wake."""
        self.events.append(event)
        if self.waiter is not None:
            trio.lowlevel.reschedule(self.waiter)
            self.waiter = None

    async def take(self) -> list[Delivered | TooLarge]:
        """Return all there is, at least one."""
        if not self.events:
            self.waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        events, self.events = self.events, []
        return events  # noqa: ASYNC910  as fast as can be


async def consume(queue: str, channel: LinkChannel) -> None:
    """Consume and acknowledge each message."""
    inbox = Inbox()
    await channel.call(commands.Basic.Qos(prefetch_count=PREFETCH))
    await channel.consume(queue, consumer_tag="c", on_delivery=inbox.put, on_cancel=print)
    left = COUNT
    while left:
        for event in await inbox.take():
            channel.ack(event.delivery_tag)
            left -= 1
    await channel.flush()


@asynccontextmanager
async def confirming(queue: str) -> AsyncGenerator[LinkChannel]:
    """A channel in confirm mode, with its own queue."""
    async with open_link(LINK) as link, link.open_channel() as channel:
        await channel.call(commands.Queue.Declare(queue=queue, exclusive=True))
        await channel.confirm_select()
        yield channel


async def main() -> None:  # noqa: ASYNC910  it measures at least once
    """Measure as often as the first argument says."""
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        queue = new_id()
        async with confirming(queue) as channel:
            for what, operation in (("publish, confirmed", publish), ("consume and acknowledge", consume)):
                measured = Measured()
                await partial(operation, queue, channel)()
                measured.show(what)


if __name__ == "__main__":
    trio.run(main)
