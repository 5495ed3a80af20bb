"""A consumer leaves while its handlers end: what they acknowledge is not delivered again, what nobody took is."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import trio
from kernel_stomp import StompDriver

from kernel import Ack, Envelope, Outcome, Return, new_id
from kernel.abc import Delivery, Queue, Subscription, Topology
from kernel.testing import fake_context

from .conftest import Server
from .test_conformance import config_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(5))
async def test_what_is_settled_while_its_consumer_leaves_is_settled(seed: int, server: Server) -> None:
    chance, queue = random.Random(seed), f"leaving-{new_id()}"
    ends = {number: chance.choice([Ack(), Ack(), Return()]) for number in range(20)}
    async with StompDriver(config=config_of(server), context=fake_context("driver/q")).open() as broker:
        await broker.declare(Topology(queues=[Queue(name=queue)]))
        for number in range(40):
            await broker.send(Envelope(subject=queue, body=b"%d" % number), exchange="")
        wish = Subscription(queue=queue, prefetch=30)
        async with trio.open_nursery() as handlers, broker.subscribe(wish) as deliveries:
            for _ in range(20):
                delivery = await anext(deliveries)
                outcome = ends[int(delivery.envelope.body)]
                handlers.start_soon(_settle, delivery, outcome, chance.uniform(0, 0.05))
            await trio.sleep(0.02)
        async with broker.subscribe(Subscription(queue=queue, prefetch=10)) as deliveries:
            again = [await _taken(deliveries) for _ in range(20 + _returned(ends))]
            with trio.move_on_after(0.5):
                again.append(await _taken(deliveries))

    wanted = [number for number, outcome in ends.items() if isinstance(outcome, Return)]
    assert sorted(again) == sorted([*wanted, *range(20, 40)])


def _returned(ends: dict[int, Outcome]) -> int:
    return sum(isinstance(outcome, Return) for outcome in ends.values())


async def _settle(delivery: Delivery, outcome: Outcome, seconds: float) -> None:
    await trio.sleep(seconds)
    if not delivery.settle_nowait(outcome):
        await delivery.settle(outcome)


async def _taken(deliveries: AsyncIterator[Delivery]) -> int:
    with trio.move_on_after(10):
        delivery = await anext(deliveries)
        await delivery.settle(Ack())
        return int(delivery.envelope.body)
    raise AssertionError("less came than was given back")
