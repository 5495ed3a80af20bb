"""Opens the driver against the real broker, and removes afterwards what was declared there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio
from kernel_amqp import AmqpBroker, AmqpConfig, AmqpDriver
from kernel_amqp._errors import ChannelClosedError
from kernel_amqp.core import Settings, with_names
from kernel_amqp.link.connect import LinkSettings
from kernel_amqp.link.link import open_link
from pamqp import base, commands

from kernel import Event
from kernel.abc import Delivery
from kernel.testing import fake_context

HERE = ("127.0.0.1", 5672)
SOON = 10.0
SETTINGS = LinkSettings(hosts=(HERE,), core=Settings(response="\0guest\0guest"))


@asynccontextmanager
async def open_amqp(config: AmqpConfig | None = None, events: list[Event] | None = None) -> AsyncGenerator[AmqpBroker]:
    """Open the driver; on exit, what it has declared is deleted."""
    broker: AmqpBroker | None = None
    context = fake_context("driver/rabbit", events=events)
    try:
        async with AmqpDriver(config=config or AmqpConfig(), context=context).open() as broker:
            yield broker
    finally:
        if broker is not None:
            with trio.move_on_after(SOON, shield=True):
                await delete(queues=[place.name for place in broker._postponer._until])
                await delete(queues=broker._catalog._queues, exchanges=broker._catalog._exchanges)


async def delete(*, queues: Iterable[str] = (), exchanges: Iterable[str] = ()) -> None:
    await ask(*(with_names(commands.Queue.Delete(), queue=name) for name in list(queues)))
    own = [name for name in exchanges if not name.startswith("amq.")]
    await ask(*(with_names(commands.Exchange.Delete(), exchange=name) for name in own))


async def ask(*methods: base.Frame) -> list[base.Frame]:
    """Send methods on a connection of their own; those that the broker refuses have no answer."""
    answers: list[base.Frame] = []
    async with open_link(SETTINGS) as link:
        for method in methods:
            try:
                async with link.open_channel() as channel:
                    answers.append(await channel.call(method))
            except ChannelClosedError:
                continue
    return answers


async def depth(queue: str) -> int | None:
    """Return how many messages are ready in a queue; None if there is no such queue."""
    answers = await ask(with_names(commands.Queue.Declare(passive=True), queue=queue))
    return answers[0].message_count if answers else None


async def take(deliveries: AsyncIterator[Delivery]) -> Delivery:
    with trio.fail_after(SOON):
        return await anext(deliveries)
