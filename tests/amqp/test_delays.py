"""What was confirmed and has to wait arrives, whatever its target does meanwhile: on a node of the test's own.

RabbitMQ offers what was refused again after three minutes. The node does so after a second.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
from kernel_amqp import AmqpBroker, AmqpConfig, AmqpDriver, AmqpOptions
from pamqp import commands

from kernel import Ack, Envelope, Retry, new_id
from kernel.abc import Binding, Exchange, Queue, Subscription, Topology
from kernel.testing import fake_context

from ._node import Node, running_node, scripts

pytestmark = pytest.mark.slow

PATIENCE = 40.0
AGAIN = "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 1000)."


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    programs = scripts()
    if programs is None:
        pytest.skip("needs rabbitmq-server")
    with running_node(tmp_path_factory.mktemp("node"), programs) as node:
        node.control("eval", AGAIN)
        node.control("set_policy", "bounded", "^by-policy", '{"max-length": 1, "overflow": "reject-publish"}')
        yield node


@asynccontextmanager
async def open_broker(node: Node) -> AsyncIterator[AmqpBroker]:
    config = AmqpConfig(hosts=(node.address,))
    async with AmqpDriver(config=config, context=fake_context("driver/rabbit")).open() as broker:
        yield broker


async def take_all(broker: AmqpBroker, queue: str, count: int) -> list[str]:
    """Take so many different messages, and acknowledge each."""
    bodies: list[str] = []
    with trio.fail_after(PATIENCE):
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            while len(bodies) < count:
                delivery = await anext(deliveries)
                await delivery.settle(Ack())
                bodies.append(delivery.envelope.body.decode())
    return sorted(set(bodies))


def through_exchange(queue: Queue) -> Topology:
    bound = Binding(queue=queue.name, exchange=f"{queue.name}.events", pattern="#")
    return Topology(exchanges=[Exchange(name=bound.exchange)], queues=[queue], bindings=[bound])


@pytest.mark.parametrize(
    "queue",
    [Queue(name="by-key", max_length=1), Queue(name="by-policy")],
    ids=["a key of the manifest", "a policy"],
)
@pytest.mark.parametrize("exchange", ["events", ""], ids=["through an exchange", "straight"])
async def test_delayed_messages_wait_for_a_target_that_is_full(node: Node, queue: Queue, exchange: str) -> None:
    name = f"{queue.name}.{new_id()}"
    async with open_broker(node) as broker:
        await broker.declare(through_exchange(Queue(name=name, max_length=queue.max_length)))
        target = f"{name}.{exchange}" if exchange else ""
        for number in range(6):
            await broker.send(Envelope(subject=name, body=str(number).encode(), delay=0.3), exchange=target)
        await trio.sleep(1.5)  # all are over, and one found room

        assert await take_all(broker, name, 6) == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize("passive", [True, False], ids=["passive", "declared by others"])
async def test_retries_wait_for_a_queue_of_others_that_is_full(node: Node, passive: bool) -> None:
    name = new_id()
    async with open_broker(node) as theirs, open_broker(node) as broker:
        await theirs.declare(Topology(queues=[Queue(name=name, max_length=1)]))
        if passive:
            await broker.declare(Topology(queues=[Queue(name=name, options=AmqpOptions(passive=True))]))
        await broker.send(Envelope(subject=name, body=b"a"), exchange="", mandatory=True)
        async with broker.subscribe(Subscription(queue=name, prefetch=1)) as deliveries:
            await (await anext(deliveries)).settle(Retry(0.5))
        await theirs.send(Envelope(subject=name, body=b"b"), exchange="", mandatory=True)
        await trio.sleep(1.5)

        assert await take_all(broker, name, 2) == ["a", "b"]


@pytest.mark.parametrize("exchange", ["events", ""], ids=["through an exchange", "straight"])
async def test_delayed_messages_wait_for_a_target_that_is_deleted_and_comes_back(node: Node, exchange: str) -> None:
    name = new_id()
    topology = through_exchange(Queue(name=name))
    async with open_broker(node) as broker:
        await broker.declare(topology)
        target = f"{name}.{exchange}" if exchange else ""
        for number in range(3):
            await broker.send(Envelope(subject=name, body=str(number).encode(), delay=1.0), exchange=target)
        async with (await broker._consuming.session()).link.open_channel() as channel:
            await channel.call(commands.Queue.Delete(queue=name))
        await trio.sleep(2.5)
        await broker.declare(topology)

        assert await take_all(broker, name, 3) == ["0", "1", "2"]
