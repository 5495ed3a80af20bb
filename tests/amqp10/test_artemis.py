"""The dialect of Artemis, against a small broker on qpid-proton's own Container: Artemis itself is not to be had."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
from kernel_amqp10 import Amqp10Broker, Amqp10Config, Amqp10Driver

from kernel import Ack, Envelope, Retry, Return
from kernel.abc import Binding, Exchange, Queue, Subscription, Topology
from kernel.testing import fake_context

from ..amqp._peer import Peer, start

pytestmark = pytest.mark.slow

LISTENER = "HelloEvent::greeter"
HELLO = Topology(
    exchanges=[Exchange(name="events")],
    queues=[Queue(name=LISTENER), Queue(name="HelloEvent::logger")],
    bindings=[
        Binding(queue=LISTENER, exchange="events", pattern="HelloEvent"),
        Binding(queue="HelloEvent::logger", exchange="events", pattern="HelloEvent"),
    ],
)


@pytest.fixture
def peer(engine: None) -> Iterator[Peer]:
    peer = start("broker_peer.py")
    yield peer
    peer.end()


@asynccontextmanager
async def opened(peer: Peer) -> AsyncIterator[Amqp10Broker]:
    port = (await peer.line(lambda line: "port" in line))["port"]
    config = Amqp10Config(
        hosts=(f"127.0.0.1:{port}",), dialect="artemis", mechanism="ANONYMOUS", exchange_in_address=False
    )
    with trio.fail_after(20):
        async with Amqp10Driver(config=config, context=fake_context("driver/queue")).open() as broker:
            yield broker


async def test_each_listener_gets_a_copy_of_an_event(peer: Peer) -> None:
    async with opened(peer) as broker:
        await broker.declare(HELLO)
        async with (
            broker.subscribe(Subscription(queue=LISTENER, prefetch=5)) as greeter,
            broker.subscribe(Subscription(queue="HelloEvent::logger", prefetch=5)) as logger,
        ):
            await broker.send(Envelope(subject="HelloEvent", body=b'{"world": "x"}'), exchange="events")
            both = [await anext(greeter), await anext(logger)]
            for delivery in both:
                await delivery.settle(Ack())

    assert [delivery.envelope.body for delivery in both] == [b'{"world": "x"}'] * 2


async def test_a_retry_without_a_wait_is_counted_by_the_broker_and_a_return_is_not(peer: Peer) -> None:
    async with opened(peer) as broker:
        await broker.declare(Topology(queues=[Queue(name="work")]))
        async with broker.subscribe(Subscription(queue="work", prefetch=1)) as deliveries:
            await broker.send(Envelope(subject="work", body=b"a"), exchange="")
            attempts = []
            for outcome in (Return(), Retry(), Return(), Ack()):
                delivery = await anext(deliveries)
                attempts.append((delivery.attempt, delivery.redelivered))
                await delivery.settle(outcome)
        outcomes = await peer.get("outcomes")

    assert attempts == [(1, False), (1, False), (2, True), (2, True)]
    assert outcomes == ["released", "modified", "released", "accepted"]


async def test_a_retry_with_a_wait_waits_in_the_broker(peer: Peer) -> None:
    async with opened(peer) as broker:
        await broker.declare(Topology(queues=[Queue(name="work")]))
        async with broker.subscribe(Subscription(queue="work", prefetch=1)) as deliveries:
            await broker.send(Envelope(subject="work", body=b"a"), exchange="")
            began = trio.current_time()
            await (await anext(deliveries)).settle(Retry(0.5))
            delivery = await anext(deliveries)
            waited = trio.current_time() - began
            await delivery.settle(Ack())

    assert delivery.attempt == 2
    assert waited >= 0.5
