"""What the broker may have is not sent again: its answer is waited for, also by a stop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
import trio
from kernel_amqp import AmqpBroker, AmqpConfig, AmqpDriver

from kernel import Ack, DeadLetter, Envelope, Outcome, Retry, new_id
from kernel.abc import Queue, Subscription, Topology
from kernel.testing import fake_context

from ..bench import SOON, depth, open_amqp, take
from ..relay import Relay, open_relay

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rabbitmq")]

DELAY = 0.053
OUTCOMES: Mapping[str, Callable[[str], tuple[Outcome, str]]] = {
    "tried again at once": lambda queue: (Retry(), queue),
    "tried again later": lambda queue: (Retry(DELAY), queue),
    "put aside": lambda queue: (DeadLetter("no use"), f"{queue}.dead"),
    "answered": lambda queue: (Ack(Envelope(subject=f"{queue}.answers")), f"{queue}.answers"),
}
"""Outcome -> where its one copy has to be."""
each_outcome = pytest.mark.parametrize("outcome_of", OUTCOMES.values(), ids=OUTCOMES.keys())


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("consumer", "settlement"):
        monkeypatch.setattr(f"kernel_amqp.broker.{module}.PATIENCE", 0.1)
    monkeypatch.setattr("kernel_amqp.broker.consumer._BACKOFF_INITIAL", 0.05)


@asynccontextmanager
async def behind(relay: Relay, queue: str) -> AsyncGenerator[AmqpBroker]:
    """A driver behind a relay, whose channels for sending are open."""
    config = AmqpConfig(hosts=(f"127.0.0.1:{relay.port}",))
    async with AmqpDriver(config=config, context=fake_context("driver/rabbit")).open() as broker:
        await broker.declare(Topology(queues=queues(queue)))
        await broker.send(Envelope(subject=queue, delay=DELAY), exchange="")
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            await (await take(deliveries)).settle(Ack())
        await broker.send(Envelope(subject=queue), exchange="", mandatory=True)
        yield broker


def queues(name: str) -> list[Queue]:
    grave = f"{name}.dead"
    return [Queue(name=grave), Queue(name=name, dead_letters=grave), Queue(name=f"{name}.answers")]


@each_outcome
async def test_what_is_confirmed_late_is_sent_once(
    outcome_of: Callable[[str], tuple[Outcome, str]], rabbitmq: tuple[str, int]
) -> None:
    queue = new_id()
    outcome, place = outcome_of(queue)
    async with open_amqp() as owner, open_relay(rabbitmq) as relay:
        await owner.declare(Topology(queues=queues(queue)))
        async with behind(relay, queue) as broker, broker.subscribe(Subscription(queue=queue, prefetch=1)) as got:
            delivery = await take(got)
            relay.hold(down=True)
            await delivery.settle(outcome)
            await trio.sleep(0.5)  # many times what it waits before it sends something again
            relay.down.set()
        await wait_for(place, 1)

        assert [await depth(each.name) for each in queues(queue)] == [int(each.name == place) for each in queues(queue)]


@each_outcome
async def test_a_stop_waits_for_the_answer_to_what_was_sent(
    outcome_of: Callable[[str], tuple[Outcome, str]], rabbitmq: tuple[str, int]
) -> None:
    queue = new_id()
    outcome, place = outcome_of(queue)
    async with open_amqp() as owner, open_relay(rabbitmq) as relay, trio.open_nursery() as nursery:
        await owner.declare(Topology(queues=queues(queue)))
        async with behind(relay, queue) as broker, broker.subscribe(Subscription(queue=queue, prefetch=1)) as got:
            delivery = await take(got)
            relay.hold(down=True)
            await delivery.settle(outcome)
            nursery.start_soon(carry_on, relay)
        await wait_for(place, 1)
        await trio.sleep(0.2)  # so that a second one would be there, too

        assert [await depth(each.name) for each in queues(queue)] == [int(each.name == place) for each in queues(queue)]


async def carry_on(relay: Relay) -> None:
    """Let the broker be heard again in the middle of a stop."""
    await trio.sleep(1.3)  # longer than leaving a subscription waits
    relay.down.set()


async def wait_for(queue: str, count: int) -> None:
    with trio.fail_after(SOON):
        while await depth(queue) != count:  # noqa: ASYNC110  the broker does not say
            await trio.sleep(0.02)
