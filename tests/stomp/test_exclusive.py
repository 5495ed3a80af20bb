"""A queue for one consumer alone, whose connection breaks before anybody has consumed from it."""

from __future__ import annotations

import attrs
import pytest
import trio
from kernel_stomp import StompDriver

from kernel import Ack, Envelope, new_id
from kernel.abc import Binding, Exchange, Queue, Subscription, Topology
from kernel.testing import fake_context, open_proxy

from .conftest import Server
from .test_conformance import config_of

pytestmark = pytest.mark.slow


async def test_it_can_be_declared_again_and_gets_what_it_is_bound_to(server: Server) -> None:
    name = f"answers-{new_id()}"
    topology = Topology(
        exchanges=[Exchange(name="news")],
        queues=[Queue(name=name, durable=False, exclusive=True)],
        bindings=[Binding(queue=name, exchange="news", pattern=pattern) for pattern in ("a.*", "*.b")],
    )
    async with open_proxy("127.0.0.1", server.port) as proxy:
        config = attrs.evolve(config_of(server, proxy.port), backoff_max=0.5)
        async with StompDriver(config=config, context=fake_context("driver/q")).open() as broker:
            with trio.fail_after(30):
                await broker.declare(topology)
                proxy.reset()
                await trio.sleep(0.1)
                await broker.declare(topology)
                async with broker.subscribe(Subscription(queue=name, prefetch=1)) as deliveries:
                    for subject in ("a.x", "c.c", "x.b", "a.b"):
                        await broker.send(Envelope(subject=subject), exchange="news")
                    got = [await anext(deliveries)]
                    for _ in range(2):
                        await got[-1].settle(Ack())
                        got.append(await anext(deliveries))
                    await got[-1].settle(Ack())

    assert [delivery.envelope.subject for delivery in got] == ["a.x", "x.b", "a.b"]
