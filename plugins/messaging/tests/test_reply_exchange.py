from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from kernel_memory import MemoryBroker
from kernel_messaging import ConsumerConfig, ConsumerDispatcher, RpcClient, RpcClientConfig, RpcClientDriver
from trio.testing import MockClock

from kernel import Ack, Event, Outcome
from kernel.abc import Binding, Capability, Delivery, Exchange, Protocol, Queue, Topology
from kernel.errors import CallTimeoutError
from kernel.testing import fake_context, open_intake


@asynccontextmanager
async def open_service(broker: MemoryBroker, protocol: Protocol, **client: Any) -> AsyncGenerator[RpcClient]:
    """A consumer that sends its replies through the exchange `events`, and a client of it."""

    async def double(delivery: Delivery) -> Outcome:
        await trio.lowlevel.checkpoint()
        payload = protocol.decode(delivery.envelope).payload
        assert isinstance(payload, int)
        return Ack(protocol.encode_reply(delivery.envelope, payload * 2))

    context = fake_context("dispatcher/sums", driver=broker, protocol=protocol)
    config = ConsumerConfig(queue="sums", bindings=("sum.*",), reply_exchange="events")
    dispatcher = ConsumerDispatcher(config=config, context=context)
    calls = RpcClientDriver(
        config=RpcClientConfig(timeout=5.0, **client),
        context=fake_context("driver/calls", driver=broker, protocol=protocol),
    )
    async with (
        dispatcher.open(),
        open_intake(answer=double) as intake,
        calls.open() as rpc,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(dispatcher.accept, intake)
        yield rpc
        nursery.cancel_scope.cancel()


async def test_a_client_that_binds_its_queue_is_answered_through_the_exchange(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async with open_service(broker, protocol, bind_replies=True) as rpc:
        assert await rpc.call("sum.double", 21) == 42


async def test_a_client_that_does_not_bind_its_queue_is_not_and_an_event_says_so(
    broker: MemoryBroker, protocol: Protocol, dropped: list[Event], autojump_clock: MockClock
) -> None:
    async with open_service(broker, protocol) as rpc:
        with pytest.raises(CallTimeoutError):
            await rpc.call("sum.double", 21)

    assert [str(event) for event in dropped if "no way to answer" in str(event)]
    assert broker.stats.acked == 1


async def test_who_listens_at_the_reply_exchange_hears_the_answers(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async with open_service(broker, protocol, bind_replies=True) as rpc:
        tap = Binding(queue="tap", exchange="events", pattern="answers.test.calls.*")
        await broker.declare(Topology(queues=[Queue(name="tap")], bindings=[tap]))
        await rpc.call("sum.double", 1)
        seen = await broker.peek("tap")

    assert [delivery.envelope.body for delivery in seen] == [b"2"]


def test_the_reply_exchange_is_declared_once_and_asks_for_replies() -> None:
    config = ConsumerConfig(queue="sums", bindings=("sum.*",), reply_exchange="events", dead_letters="")

    assert list(config.topology().exchanges) == [Exchange(name="events")]
    assert ConsumerDispatcher.requires(config) == frozenset({Capability.REQUEST_REPLY})
