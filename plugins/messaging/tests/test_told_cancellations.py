"""Calls that are cancelled: their callees are told, and nobody waits for that."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import pytest
import trio
from kernel_memory import MemoryBroker
from kernel_messaging import RpcClient
from kernel_messaging._calls import Calls
from kernel_messaging._cancellation import Teller
from trio.testing import MockClock

from kernel import Ack, Envelope, Outcome
from kernel.abc import Binding, Delivery, Exchange, Protocol, Queue, Topology
from kernel.errors import CallTimeoutError, ConflictError

from .cancelling import CANCELLATIONS, Faulty, Handler, cancel_call, open_client, open_consumer, refuse, tap


async def test_the_handler_of_a_cancelled_call_is_cancelled_and_acknowledged(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    handler = Handler()
    async with (
        open_consumer(broker, handler) as intake,
        open_client(broker, protocol) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.call, "sum.double", "b")
        await cancel_call(client)
        await trio.sleep(0.1)
        settled = [(one.delivery.envelope.body, one.outcome) for one in intake.settled]
        assert (handler.cancelled, client.in_flight) == (['"a"'], 1)
        nursery.cancel_scope.cancel()

    assert sorted(handler.began) == ['"a"', '"b"']
    assert settled == [(b'"a"', Ack())]


async def test_the_handler_of_a_call_that_took_too_long_is_cancelled(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    handler = Handler()
    async with open_consumer(broker, handler) as intake, open_client(broker, protocol, timeout=5.0) as client:
        with pytest.raises(CallTimeoutError):
            await client.call("sum.double", "a")
        await intake.wait_settled(1)

    assert trio.current_time() < 6
    assert handler.cancelled == ['"a"']


async def test_a_cancellation_is_subject_and_id_of_its_request_and_nothing_else(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    await tap(broker, "sums")
    async with open_client(broker, protocol) as client:
        await cancel_call(client)
        await trio.sleep(0.1)
    [request] = await broker.peek("sums")
    [cancellation] = await broker.peek("tap")

    assert cancellation.envelope.correlation_id == request.envelope.correlation_id != ""
    assert cancellation.envelope.subject == "sum.double"
    assert (cancellation.envelope.body, dict(cancellation.envelope.headers)) == (b"", {})


async def test_a_call_that_its_answer_ended_sends_nothing(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async def answer(delivery: Delivery) -> Outcome:
        await trio.sleep(1)
        return Ack(protocol.encode_reply(delivery.envelope, 42))

    await tap(broker)
    async with open_consumer(broker, answer), open_client(broker, protocol) as client:
        assert await client.call("sum.double", 21) == 42
        with pytest.raises(ValueError, match="no good"):
            await _fail_after(client)
        await trio.sleep(1)
        seen = await broker.peek("tap")

    assert seen == []


async def _fail_after(client: RpcClient) -> None:
    await client.call("sum.double", 21)
    raise ValueError("no good")


async def test_a_caller_that_is_cancelled_when_its_answer_is_there_sends_nothing(
    broker: MemoryBroker, autojump_clock: MockClock
) -> None:
    await tap(broker, "sums")
    teller, scope = Teller(broker, CANCELLATIONS), trio.CancelScope()
    calls = Calls(broker, "events", trio.CapacityLimiter(1), teller)
    calls.connect("answers")

    async def ask() -> None:
        with scope:
            await calls.ask(Envelope(subject="sum.double"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(teller.run)
        await trio.sleep(1)
        [request] = await broker.peek("sums")
        scope.cancel()
        calls.accept(Envelope(subject="answers", correlation_id=request.envelope.correlation_id))
        await trio.sleep(1)
        await teller.finish()

    assert scope.cancelled_caught
    assert await broker.peek("tap") == []


@pytest.mark.parametrize("config", [{"cancel_exchange": ""}, {"declare": False}])
async def test_nobody_is_told_where_that_is_off(
    config: dict[str, Any], broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    await broker.declare(Topology(exchanges=[Exchange(name="events")], queues=[Queue(name="sums")]))
    await broker.declare(Topology(bindings=[Binding(queue="sums", exchange="events", pattern="sum.*")]))
    async with open_client(broker, protocol, **config) as client:
        await cancel_call(client)
        await trio.sleep(1)
        missing = Binding(queue="sums", exchange=CANCELLATIONS, pattern="#")
        with pytest.raises(ConflictError, match="there is no exchange"):
            await broker.declare(Topology(bindings=[missing]))


async def test_an_exchange_of_somebody_else_is_used_and_not_declared(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    await tap(broker, "sums")
    async with open_client(broker, protocol, declare=False, cancel_exchange=CANCELLATIONS) as client:
        await cancel_call(client)
        await trio.sleep(1)

    assert len(await broker.peek("tap")) == 1


async def test_a_caller_is_not_held_up_by_a_broker_that_hangs(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    await tap(broker, "sums")
    faulty = Faulty(broker, trio.sleep_forever)
    async with open_client(faulty, protocol) as client:
        waited = [await cancel_call(client) for _ in range(3)]
        await trio.sleep(5)
        closing = trio.current_time()
    closed = trio.current_time() - closing

    assert waited == [pytest.approx(1.0, abs=0.01)] * 3
    assert faulty.sent == 3
    assert closed == pytest.approx(0.0, abs=0.6)
    assert await broker.peek("tap") == []


async def test_a_driver_that_closes_waits_a_short_time_for_a_broker_that_hangs(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    await tap(broker, "sums")
    async with open_client(Faulty(broker, trio.sleep_forever), protocol) as client:
        await cancel_call(client)
        closing = trio.current_time()

    assert trio.current_time() - closing == pytest.approx(0.5, abs=0.01)


async def test_what_was_cancelled_just_before_the_driver_closes_is_still_told(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    await tap(broker, "sums")
    async with open_client(broker, protocol) as client, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(client.call, "sum.double", number)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert len(await broker.peek("tap")) == 20


async def test_a_broker_that_refuses_a_cancellation_costs_only_that(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    handler = Handler(0.0)
    async with open_consumer(broker, handler), open_client(Faulty(broker, refuse), protocol) as client:
        handler.seconds = 60.0
        await cancel_call(client)
        handler.seconds = 0.0
        with pytest.raises(Exception, match="Expecting value"):  # it was answered, with an empty body
            await client.call("sum.double", "b")

    assert handler.cancelled == []


async def test_a_call_that_is_cancelled_while_it_is_sent_is_told(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    @attrs.define(eq=False)
    class Slow(Faulty):
        async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
            if exchange == "events":
                await trio.sleep(60)
            await super().send(envelope, exchange=exchange, mandatory=mandatory)

    await tap(broker, "sums")
    async with open_client(Slow(broker, trio.lowlevel.checkpoint), protocol) as client:
        await cancel_call(client)

    assert len(await broker.peek("tap")) == 1


async def test_a_call_that_is_cancelled_before_it_is_sent_is_not_told(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    await tap(broker, "sums")
    async with open_client(broker, protocol, max_in_flight=1) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call, "sum.double", "a")
        await trio.sleep(1)
        await cancel_call(client, "b")
        seen = await broker.peek("tap")
        nursery.cancel_scope.cancel()

    assert seen == []


@pytest.mark.parametrize("calls", [1, 5, 100])
async def test_calls_that_end_together_are_told_of_together(
    broker: MemoryBroker, autojump_clock: MockClock, calls: int
) -> None:
    await tap(broker)
    slow = Faulty(broker, partial(trio.sleep, 1.0))
    teller = Teller(slow, CANCELLATIONS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(teller.run)
        for number in range(calls):
            teller.tell(Envelope(subject="a", correlation_id=str(number)))
        await trio.sleep(1.5)
        told = await broker.peek("tap", limit=1000)
        await teller.finish()

    assert {one.envelope.correlation_id for one in told} == set(map(str, range(calls)))
    assert slow.sent == calls


async def test_what_cannot_be_kept_until_it_is_sent_is_dropped(broker: MemoryBroker) -> None:
    teller = Teller(broker, CANCELLATIONS)
    for _ in range(10_002):
        teller.tell(Envelope(subject="a"))

    assert teller.dropped == 2


async def test_what_is_told_after_the_end_is_dropped(broker: MemoryBroker) -> None:
    teller = Teller(broker, CANCELLATIONS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(teller.run)
        await teller.finish()
    teller.tell(Envelope(subject="a"))

    assert teller.dropped == 1
