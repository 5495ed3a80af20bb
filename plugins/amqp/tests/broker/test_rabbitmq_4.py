"""Where RabbitMQ 4 answers differently than 3.10, by a peer that says what its documentation says."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from kernel_amqp import AmqpBroker, AmqpConfig, AmqpDriver, AmqpOptions
from pamqp import commands
from pamqp.base import Frame

from kernel import Event
from kernel.abc import Queue, Subscription, Topology
from kernel.errors import ConflictError, SubscriptionLostError
from kernel.testing import fake_context

from ..bench import SOON
from ..peer import Peer

TEXT = "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated and not permitted"


class Rabbit(Peer):
    """One connection of a RabbitMQ 4.3."""

    node: Node

    async def respond(self, channel: int, method: Frame) -> None:
        self.node.asked.append(method)
        match method:
            case commands.Queue.Declare(passive=False, durable=False, exclusive=False) if self.node.is_strict:
                await self.send(commands.Connection.Close(541, TEXT, 50, 10), channel=0)
            case _:
                await super().respond(channel, method)


class Node:
    """Takes connections, and counts them."""

    def __init__(self) -> None:
        self.is_strict = True
        self.streams: list[Any] = []
        self.port = 0
        self.asked: list[Frame] = []

    async def accept(self, stream: trio.SocketStream) -> None:
        self.streams.append(stream)
        peer = Rabbit(stream)
        peer.node = self
        try:
            await peer.welcome()
        except (EOFError, trio.BrokenResourceError):
            return
        await peer.serve()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        await trio.serve_listeners(self.accept, [listener], task_status=task_status)


@asynccontextmanager
async def on_node(events: list[Event] | None = None) -> AsyncGenerator[tuple[Node, AmqpBroker]]:
    node = Node()
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        config = AmqpConfig(hosts=(f"127.0.0.1:{node.port}",), backoff_initial=0.01, backoff_max=0.05)
        async with AmqpDriver(config=config, context=fake_context("driver/rabbit", events=events)).open() as broker:
            yield node, broker
        nursery.cancel_scope.cancel()


async def test_a_declaration_for_which_the_connection_is_closed_is_an_error_of_that_queue_alone() -> None:
    with trio.fail_after(SOON):
        async with on_node() as (node, broker):
            await broker.declare(Topology(queues=[Queue(name="good")]))
            async with broker.subscribe(Subscription(queue="good", prefetch=1)) as deliveries:
                with pytest.raises(ConflictError, match=r'queue "bad" cannot be declared: .*541.*`durable = false`'):
                    await broker.declare(Topology(queues=[Queue(name="bad", durable=False)]))
                with pytest.raises(SubscriptionLostError):
                    await anext(deliveries)
            async with broker.subscribe(Subscription(queue="good", prefetch=1)):
                await broker.declare(Topology(queues=[Queue(name="other")]))
                assert len(node.streams) == 3, "two at the start, and one in the place of that which was closed"


async def test_who_declares_meanwhile_is_not_accused() -> None:
    refused: list[str] = []

    async with on_node() as (_, broker):

        async def declare(name: str) -> None:
            try:
                await broker.declare(Topology(queues=[Queue(name=name, durable=name != "bad")]))
            except ConflictError:
                refused.append(name)

        with trio.fail_after(SOON):
            async with trio.open_nursery() as nursery:
                for name in ("a", "b", "bad", "c", "d"):
                    nursery.start_soon(declare, name)

    assert refused == ["bad"]


async def test_a_broker_that_became_stricter_is_connected_to_without_what_it_does_not_take() -> None:
    with trio.fail_after(SOON):
        async with on_node() as (node, broker):
            node.is_strict = False
            await broker.declare(Topology(queues=[Queue(name="transient", durable=False), Queue(name="good")]))
            node.is_strict = True
            for stream in node.streams:
                await trio.aclose_forcefully(stream)
            async with broker.subscribe(Subscription(queue="good", prefetch=1)):
                await broker.declare(Topology(queues=[Queue(name="other")]))


async def test_exclusive_queues_and_quorum_queues_are_taken() -> None:
    with trio.fail_after(SOON):
        async with on_node() as (node, broker):
            quorum = Queue(name="q", dead_letters="q.dead", options=AmqpOptions(type="quorum"))
            answers = Queue(name="answers", durable=False, exclusive=True)
            await broker.declare(Topology(queues=[Queue(name="q.dead"), quorum, answers]))
            assert len(node.streams) == 2


async def test_a_stream_is_filtered_by_the_broker_where_it_can() -> None:
    options = AmqpOptions(type="stream", offset="first", filter=("eu", "us"))
    with trio.fail_after(SOON):
        async with on_node() as (node, broker):
            await broker.declare(Topology(queues=[Queue(name="s", options=options)]))
            async with broker.subscribe(Subscription(queue="s", prefetch=1)):
                consume = next(method for method in node.asked if isinstance(method, commands.Basic.Consume))

    assert consume.arguments == {
        "x-stream-offset": "first",
        "x-stream-filter": ["eu", "us"],
        "x-stream-match-unfiltered": False,
    }
