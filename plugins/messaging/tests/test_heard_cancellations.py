"""Cancelled calls as the callee hears of them: what is revoked, what is remembered, and what is not heard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import attrs
import pytest
import trio
from kernel_memory import MemoryBroker
from kernel_messaging import ConsumerConfig, ConsumerDispatcher
from kernel_messaging._cancellation import MAX_EARLY, Hearer
from trio.testing import MockClock

from kernel import Ack, Envelope, Outcome
from kernel.abc import Capability, Delivery, Exchange, Protocol, Queue, Subscription, Topology
from kernel.errors import ConflictError, UnavailableError
from kernel.testing import fake_context, open_intake

from .cancelling import CANCELLATIONS, Faulty, Handler, cancel_call, open_client, open_consumer


async def test_a_request_that_comes_after_its_cancellation_is_not_handled(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    handler = Handler()
    async with open_consumer(broker, handler, concurrency=1) as intake, open_client(broker, protocol) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, "sum.double", "a")
            await trio.sleep(1)
            await cancel_call(client, "b")  # it waits for the slot
            await cancel_call(client, "c")  # it waits in the queue
            nursery.cancel_scope.cancel()
        with trio.fail_after(60):
            await intake.wait_settled(3)

    assert handler.began == ['"a"']
    assert [one.outcome for one in intake.settled] == [Ack()] * 3


async def test_what_is_no_request_is_not_revoked(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    handler = Handler()
    async with open_consumer(broker, handler) as intake, open_client(broker, protocol):
        await broker.send(Envelope(subject="sum.up", body=b"a", correlation_id="c-1"), exchange="events")
        await trio.sleep(1)
        await broker.send(Envelope(subject="sum.up", correlation_id="c-1"), exchange=CANCELLATIONS)
        await intake.wait_settled(1)

    assert handler.cancelled == []


async def test_a_consumer_hears_of_its_own_subjects_only(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    handler = Handler()
    async with open_consumer(broker, handler) as intake, open_client(broker, protocol):
        request = Envelope(subject="sum.up", body=b"a", correlation_id="c-1", reply_to="nobody")
        await broker.send(request, exchange="events")
        await trio.sleep(1)
        await broker.send(Envelope(subject="difference.up", correlation_id="c-1"), exchange=CANCELLATIONS)
        await trio.sleep(1)
        assert handler.cancelled == []
        await broker.send(Envelope(subject="sum.up", correlation_id="c-1"), exchange=CANCELLATIONS)
        await intake.wait_settled(1)

    assert handler.cancelled == ["a"]


async def test_a_consumer_without_bindings_hears_of_all(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    handler = Handler()
    async with open_consumer(broker, handler, bindings=()) as intake:
        await broker.send(Envelope(subject="sums", body=b"a", correlation_id="c-1", reply_to="nobody"), exchange="")
        await trio.sleep(1)
        await broker.send(Envelope(subject="any.thing", correlation_id="c-1"), exchange=CANCELLATIONS)
        await intake.wait_settled(1)

    assert handler.cancelled == ["a"]


async def test_cancellations_are_heard_while_the_consumer_drains(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    handler = Handler()
    context = fake_context("dispatcher/sums", driver=broker)
    config = ConsumerConfig(queue="sums", bindings=("sum.*",), cancellable=True)
    dispatcher = ConsumerDispatcher(config=config, context=context)
    async with (
        open_client(broker, protocol) as client,
        trio.open_nursery() as callers,
        dispatcher.open(),
        open_intake(answer=handler) as intake,
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(dispatcher.accept, intake)
            callers.start_soon(cancel_call, client)
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        await intake.wait_settled(1)

    assert handler.cancelled == ['"a"']
    assert trio.current_time() < 2


async def test_the_queue_of_the_cancellations_goes_away_with_the_consumer(
    broker: MemoryBroker, autojump_clock: MockClock
) -> None:
    names: list[str] = []

    @attrs.define(eq=False)
    class Noting(Faulty):
        def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
            names.append(subscription.queue)
            return super().subscribe(subscription)

    async with open_consumer(Noting(broker, trio.lowlevel.checkpoint), Handler()):
        await trio.sleep(1)
        await broker.peek(names[0])

    assert names[0].startswith("test.sums.cancellations.")
    with pytest.raises(ConflictError):
        await broker.peek(names[0])


async def test_a_broker_that_breaks_while_cancellations_are_awaited_ends_the_consumer(
    broker: MemoryBroker, autojump_clock: MockClock
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await _consume_until_broken(broker)

    assert caught.group_contains(UnavailableError)


async def _consume_until_broken(broker: MemoryBroker) -> None:
    async with open_consumer(broker, Handler()):
        await trio.sleep(1)
        broker.close()
        await trio.sleep(60)


def test_only_a_cancellable_consumer_asks_for_the_exchange_and_for_replies() -> None:
    plain, cancellable = (
        ConsumerConfig(queue="sums", dead_letters="", cancellable=cancellable) for cancellable in (False, True)
    )

    assert (list(plain.topology().exchanges), ConsumerDispatcher.requires(plain)) == ([], frozenset())
    assert list(cancellable.topology().exchanges) == [Exchange(name=CANCELLATIONS)]
    assert ConsumerDispatcher.requires(cancellable) == frozenset({Capability.REQUEST_REPLY})


async def test_so_many_early_cancellations_are_remembered_and_no_more(broker: MemoryBroker) -> None:
    hearer, began = Hearer(), []

    async def note(delivery: Delivery) -> Outcome:
        began.append(delivery.envelope.correlation_id)
        await trio.lowlevel.checkpoint()
        return Ack()

    for number in range(MAX_EARLY + 1):
        hearer.hear(str(number))
    for name in ("", "x" * 256):
        hearer.hear(name)
    await broker.declare(Topology(queues=[Queue(name="sums")]))
    for name in ("0", "1", str(MAX_EARLY), "x" * 256):
        await broker.send(Envelope(subject="sums", correlation_id=name, reply_to="nobody"), exchange="")
    async with (
        broker.subscribe(Subscription(queue="sums", prefetch=4)) as deliveries,
        open_intake(answer=note, concurrency=4) as intake,
    ):
        for _ in range(4):
            await hearer.submit(intake, await anext(deliveries))

    assert sorted(began) == ["0", "x" * 256]
    assert [one.outcome for one in intake.settled] == [Ack()] * 4
