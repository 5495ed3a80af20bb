"""Users that may not do everything, and a broker that takes nothing for a while, on a node of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from kernel_amqp import AmqpBroker, AmqpConfig, AmqpDriver

from kernel import Ack, DeadLetter, Envelope, Outcome, Retry, Secret, new_id
from kernel.abc import Binding, Delivery, Exchange, Queue, Subscription, Topology
from kernel.testing import fake_context

from ._node import Node, running_node, scripts

pytestmark = pytest.mark.slow

WATERMARK = "set_vm_memory_high_watermark"
PATIENCE = 30.0
EVERYTHING = ".*"
ENOUGH = {
    "shop": (r"shop\..*|kernel\.delay\..*", r"shop\..*|kernel\.delay\..*|amq\.default", r"shop\..*|kernel\.delay\..*")
}
"""User -> what it may configure, write and read: what the README of the plugin names."""
LACKING = {
    "no-delays": (r"shop\..*", EVERYTHING, EVERYTHING),
    "no-default": (EVERYTHING, r"shop\..*|kernel\..*", EVERYTHING),
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    programs = scripts()
    if programs is None:
        pytest.skip("needs rabbitmq-server")
    with running_node(tmp_path_factory.mktemp("node"), programs) as node:
        for user, allowed in (ENOUGH | LACKING).items():
            node.control("add_user", user, user)
            node.control("set_permissions", user, *(f"^({pattern})$" for pattern in allowed))
        yield node


@asynccontextmanager
async def open_as(node: Node, user: str) -> AsyncIterator[AmqpBroker]:
    config = AmqpConfig(hosts=(node.address,), username=user, password=Secret(user))
    async with AmqpDriver(config=config, context=fake_context("driver/rabbit")).open() as broker:
        yield broker


def shop(*, dead_letters: bool = True) -> tuple[str, Topology]:
    name = f"shop.{new_id()}"
    grave = f"{name}.dead" if dead_letters else ""
    dead = [Queue(name=grave)] if grave else []
    return name, Topology(queues=[*dead, Queue(name=name, dead_letters=grave)])


async def settle(delivery: Delivery, outcome: Outcome) -> None:
    with trio.fail_after(5, shield=True):
        if not delivery.settle_nowait(outcome):
            await delivery.settle(outcome)


async def count_runs(broker: AmqpBroker, queue: str, outcome: Outcome, *, seconds: float = 1.5) -> int:
    """Handle what comes as the kernel would, and return how often that was."""
    runs = 0
    with trio.move_on_after(seconds):
        async with broker.subscribe(Subscription(queue=queue, prefetch=10)) as deliveries:
            async for delivery in deliveries:
                runs += 1
                await settle(delivery, outcome)
    return runs


async def take_one(broker: AmqpBroker, queue: str) -> Envelope:
    with trio.fail_after(PATIENCE):
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            delivery = await anext(deliveries)
            await settle(delivery, Ack())
            return delivery.envelope


@pytest.mark.parametrize(
    ("user", "outcome"),
    [
        ("no-delays", Retry(0.3)),
        ("no-default", Retry()),
        ("no-default", Retry(0.3)),
        ("no-default", DeadLetter("no use")),
    ],
    ids=["delay", "retry", "later", "dead letter"],
)
async def test_a_user_who_must_not_send_an_outcome_has_the_broker_put_the_message_aside(
    node: Node, user: str, outcome: Outcome
) -> None:
    queue, topology = shop()
    async with open_as(node, "guest") as all_may, open_as(node, user) as broker:
        await all_may.declare(topology)
        await broker.declare(Topology(queues=[Queue(name=f"{queue}.dead")]))
        await all_may.send(Envelope(subject=queue), exchange="", mandatory=True)

        runs = await count_runs(broker, queue, outcome)
        letter = await take_one(all_may, f"{queue}.dead")

    assert runs <= 2
    assert letter.headers["kernel-death-queue"] == queue


async def test_a_user_with_what_the_docs_name_can_do_everything(node: Node) -> None:
    queue, topology = shop()
    bound = Binding(queue=queue, exchange="shop.events", pattern="#")
    async with open_as(node, "shop") as broker:
        await broker.declare(topology)
        await broker.declare(Topology(exchanges=[Exchange(name="shop.events")], bindings=[bound]))
        await broker.send(Envelope(subject="a"), exchange="shop.events", mandatory=True)
        assert (await take_one(broker, queue)).subject == "a"
        await broker.send(Envelope(subject="b", delay=0.2), exchange="shop.events")
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            await settle(await anext(deliveries), Retry())
            await settle(await anext(deliveries), Retry(0.2))
            await settle(await anext(deliveries), DeadLetter("no use"))
        letter = await take_one(broker, f"{queue}.dead")

    assert letter.headers["kernel-death-attempts"] == 3


async def test_a_request_is_answered_once_though_the_broker_takes_nothing_for_longer_than_settling_may_take(
    node: Node,
) -> None:
    queue, topology = shop()
    answers, _ = shop(dead_letters=False)
    async with open_as(node, "guest") as broker:
        await broker.declare(topology)
        await broker.declare(Topology(queues=[Queue(name=answers)]))
        await broker.send(Envelope(subject=queue), exchange="", mandatory=True)
        async with blocked(node):
            await tell_of_the_alarm(broker)
            runs = await count_runs(broker, queue, Ack(Envelope(subject=answers)), seconds=8.0)
        await take_one(broker, answers)
        assert await count_runs(broker, answers, Ack(), seconds=1.0) == 0

    assert runs == 1


async def tell_of_the_alarm(broker: AmqpBroker) -> None:
    """Send something, since the broker tells those who do."""
    with trio.move_on_after(0.5):
        await broker.send(Envelope(subject="shop.nobody"), exchange="")


@asynccontextmanager
async def blocked(node: Node) -> AsyncIterator[None]:
    """Let the node believe that it has no memory left; in the end it has."""
    await trio.to_thread.run_sync(partial(node.control, WATERMARK, "0.0000001"))
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(partial(node.control, WATERMARK, "0.4"))
