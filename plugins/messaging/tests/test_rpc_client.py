from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from kernel_memory import MemoryBroker
from kernel_messaging import RpcClient, RpcClientConfig, RpcClientDriver
from trio.testing import MockClock

from kernel import Ack, Envelope, Event
from kernel.abc import Binding, Broker, Capability, Delivery, Exchange, Protocol, Queue, Subscription, Topology
from kernel.errors import (
    CallTimeoutError,
    ConversionError,
    DecodeError,
    RemoteError,
    UnavailableError,
    UnknownOutcomeError,
    UnroutableError,
)
from kernel.testing import cancel_at_each_checkpoint, fake_context

Answer = Callable[[Envelope], Awaitable[Envelope | None]]


@attrs.define(eq=False)
class Breakable(Broker):
    """Passes on, until its subscriptions are broken; then it cannot subscribe until it is mended."""

    inner: Broker
    broken: trio.Event = attrs.field(factory=trio.Event)

    async def declare(self, topology: Topology) -> None:
        await self.inner.declare(topology)

    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        await self.inner.send(envelope, exchange=exchange, mandatory=mandatory)

    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return self._subscribe(subscription)

    @asynccontextmanager
    async def _subscribe(self, subscription: Subscription) -> AsyncGenerator[AsyncIterator[Delivery]]:
        if self.broken.is_set():
            raise UnavailableError("no connection")
        async with self.inner.subscribe(subscription) as deliveries:
            yield BreakableDeliveries(deliveries, self.broken)


class Waiting(Breakable):
    """Waits before and after it has sent something, as a broker does that is elsewhere."""

    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        await trio.lowlevel.checkpoint()
        await super().send(envelope, exchange=exchange, mandatory=mandatory)
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class BreakableDeliveries(AsyncIterator[Delivery]):
    inner: AsyncIterator[Delivery]
    broken: trio.Event

    async def __anext__(self) -> Delivery:
        found: list[Delivery] = []
        async with trio.open_nursery() as nursery:

            async def take() -> None:
                found.append(await anext(self.inner))
                nursery.cancel_scope.cancel()

            async def watch() -> None:
                await self.broken.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(take)
            nursery.start_soon(watch)
        if not found:
            raise UnavailableError("the connection broke")
        return found[0]


@asynccontextmanager
async def open_client(
    broker: Broker, protocol: Protocol, *, events: list[Event] | None = None, **config: Any
) -> AsyncGenerator[RpcClient]:
    context = fake_context("driver/calls", driver=broker, protocol=protocol, events=events)
    async with RpcClientDriver(config=RpcClientConfig(**config), context=context).open() as client:
        yield client


@asynccontextmanager
async def serve(broker: Broker, answer: Answer) -> AsyncGenerator[None]:
    await broker.declare(
        Topology(
            exchanges=[Exchange(name="events")],
            queues=[Queue(name="sums")],
            bindings=[Binding(queue="sums", exchange="events", pattern="sum.*")],
        )
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve, broker, answer)
        yield
        nursery.cancel_scope.cancel()


async def _serve(broker: Broker, answer: Answer) -> None:
    async with broker.subscribe(Subscription(queue="sums", prefetch=100)) as deliveries, trio.open_nursery() as nursery:

        async def handle(delivery: Delivery) -> None:
            reply = await answer(delivery.envelope)
            with trio.CancelScope(shield=True):
                await delivery.settle(Ack(reply))

        async for delivery in deliveries:
            nursery.start_soon(handle, delivery)


@pytest.fixture
def double(protocol: Protocol) -> Answer:
    async def answer(request: Envelope) -> Envelope | None:
        await trio.sleep(1)
        payload = protocol.decode(request).payload
        assert isinstance(payload, int)
        return protocol.encode_reply(request, payload * 2)

    return answer


async def never(_request: Envelope) -> Envelope | None:
    await trio.sleep_forever()
    return None


async def test_calls_at_the_same_time_get_their_own_answers(
    broker: MemoryBroker, protocol: Protocol, double: Answer, autojump_clock: MockClock
) -> None:
    answers: dict[int, object] = {}
    async with serve(broker, double), open_client(broker, protocol) as client, trio.open_nursery() as nursery:

        async def call(number: int) -> None:
            answers[number] = await client.call("sum.double", number)

        for number in range(20):
            nursery.start_soon(call, number)

    assert answers == {number: number * 2 for number in range(20)}


async def test_an_error_answer_raises_what_the_other_side_said(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async def refuse(request: Envelope) -> Envelope | None:
        await trio.lowlevel.checkpoint()
        return protocol.encode_error(request, ValueError("too big"))

    async with serve(broker, refuse), open_client(broker, protocol) as client:
        with pytest.raises(RemoteError, match="ValueError: too big") as raised:
            await client.call("sum.double", 1)

    assert (raised.value.kind, raised.value.message) == ("ValueError", "too big")


async def test_an_answer_that_means_nothing_is_a_decode_error(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async def babble(request: Envelope) -> Envelope | None:
        await trio.lowlevel.checkpoint()
        return Envelope(subject=request.reply_to, correlation_id=request.correlation_id, body=b"\xff{")

    async with serve(broker, babble), open_client(broker, protocol) as client:
        with pytest.raises(DecodeError):
            await client.call("sum.double", 1)
        assert client.in_flight == 0


@attrs.frozen
class Double:
    """What the answer of a typed call is."""

    value: int


async def test_an_answer_is_of_the_type_that_is_asked_for(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async def answer(request: Envelope) -> Envelope | None:
        await trio.lowlevel.checkpoint()
        return protocol.encode_reply(request, {"value": protocol.decode(request).payload})

    async with serve(broker, answer), open_client(broker, protocol) as client:
        typed = await client.call("sum.double", 4, returns=Double)
        table = await client.call("sum.double", 4, returns=dict[str, int])
        perhaps = await client.call("sum.double", 4, returns=Double | None)
        with pytest.raises(ConversionError, match='value: must be an integer, got "four"'):
            await client.call("sum.double", "four", returns=Double)

    assert (typed.value, table["value"], perhaps) == (4, 4, Double(4))


async def test_a_type_that_nothing_can_be_converted_to_is_refused_before_anything_is_sent(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    asked: list[Envelope] = []

    async def note(request: Envelope) -> Envelope | None:
        await trio.lowlevel.checkpoint()
        asked.append(request)
        return None

    async with serve(broker, note), open_client(broker, protocol) as client:
        with pytest.raises(TypeError, match="cannot be converted to"):
            await client.call("sum.double", 4, returns=trio.Event)

    assert asked == []


async def test_a_call_that_nobody_serves_fails_at_once(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async with open_client(broker, protocol) as client:
        start = trio.current_time()
        with pytest.raises(UnroutableError):
            await client.call("sum.double", 1)

        assert trio.current_time() == start
        assert client.in_flight == 0


async def test_no_answer_in_time_names_subject_and_seconds(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async with serve(broker, never), open_client(broker, protocol, timeout=5.0) as client:
        start = trio.current_time()
        with pytest.raises(CallTimeoutError, match=r'no answer to "sum.double" came within 5 s') as raised:
            await client.call("sum.double", 1)

        assert trio.current_time() - start == pytest.approx(5)
        assert (raised.value.subject, raised.value.seconds) == ("sum.double", 5.0)
        assert client.in_flight == 0


async def test_the_callers_own_deadline_ends_the_call_in_the_callers_way(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async with serve(broker, never), open_client(broker, protocol) as client:
        with pytest.raises(trio.TooSlowError), trio.fail_after(2):
            await client.call("sum.double", 1)

        assert client.in_flight == 0


@pytest.mark.parametrize(("own", "carried"), [(2.0, 2.0), (100.0, 30.0), (float("inf"), 30.0)])
async def test_a_request_carries_the_sooner_of_both_deadlines(
    broker: MemoryBroker, protocol: Protocol, own: float, carried: float, autojump_clock: MockClock
) -> None:
    seen: list[float] = []

    async def note(request: Envelope) -> Envelope | None:
        await trio.lowlevel.checkpoint()
        seen.append(request.deadline - trio.current_time())
        return protocol.encode_reply(request, None)

    async with serve(broker, note), open_client(broker, protocol) as client:
        with trio.fail_after(own):
            await client.call("sum.double", 1)

    assert seen == [pytest.approx(carried)]


async def test_a_late_answer_is_dropped_and_counted(
    broker: MemoryBroker, protocol: Protocol, double: Answer, autojump_clock: MockClock
) -> None:
    async with serve(broker, double), open_client(broker, protocol) as client:
        with trio.move_on_after(0.5):
            await client.call("sum.double", 1)
        await trio.sleep(1)
        late = client.late_replies

        assert await client.call("sum.double", 2) == 4
        assert (late, client.late_replies) == (1, 1)


async def test_a_second_answer_to_one_call_is_counted_as_late(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async def twice(request: Envelope) -> Envelope | None:
        reply = protocol.encode_reply(request, "once")
        assert reply is not None
        await broker.send(reply, exchange="")
        return reply

    async with serve(broker, twice), open_client(broker, protocol) as client:
        assert await client.call("sum.double", 1) == "once"
        await trio.sleep(1)
        assert client.late_replies == 1


async def test_a_call_cancelled_anywhere_leaves_nothing_behind(
    broker: MemoryBroker, protocol: Protocol, double: Answer, autojump_clock: MockClock
) -> None:
    answers: list[object] = []
    async with serve(broker, double), open_client(Waiting(broker), protocol, max_in_flight=1) as client:

        async def call() -> None:
            assert client.in_flight == 0
            answers.append(await client.call("sum.double", 21))

        checkpoints = await cancel_at_each_checkpoint(call)
        await trio.sleep(5)

        assert client.in_flight == 0
        assert await client.call("sum.double", 4) == 8
    assert checkpoints >= 3
    assert set(answers) == {42}
    assert broker.stats.unsettled == 0


async def test_not_more_calls_are_in_flight_than_allowed(
    broker: MemoryBroker, protocol: Protocol, double: Answer, autojump_clock: MockClock
) -> None:
    most = 0
    async with serve(broker, double), open_client(broker, protocol, max_in_flight=2) as client:
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(client.call, "sum.double", number)
            for _ in range(5):
                await trio.sleep(0.3)
                most = max(most, client.in_flight)

        assert most == 2
        assert trio.current_time() - start == pytest.approx(3)


async def test_waiting_for_a_place_counts_against_the_deadline(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async with serve(broker, never), open_client(broker, protocol, max_in_flight=1, timeout=4.0) as client:
        start = trio.current_time()

        async def call() -> None:
            with pytest.raises(CallTimeoutError):
                await client.call("sum.double", 1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(call)

        assert trio.current_time() - start == pytest.approx(4)


async def test_a_break_fails_the_calls_under_way_and_heals(
    broker: MemoryBroker, protocol: Protocol, double: Answer, autojump_clock: MockClock
) -> None:
    events: list[Event] = []
    breakable = Breakable(broker)
    async with serve(broker, double), open_client(breakable, protocol, events=events) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect, UnknownOutcomeError, client)
            await trio.sleep(0.5)
            breakable.broken.set()
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_answer, client)
            await trio.sleep(5)  # waits through more than one try
            breakable.broken = trio.Event()

    assert [(event.old.value, event.new.value) for event in events][-1] == ("degraded", "ready")  # type: ignore[attr-defined]
    assert {event.reason for event in events[:-1]} >= {"no answers come in: no connection"}  # type: ignore[attr-defined]


async def _expect(kind: type[Exception], client: RpcClient) -> None:
    with pytest.raises(kind):
        await client.call("sum.double", 1)


async def _expect_answer(client: RpcClient) -> None:
    assert await client.call("sum.double", 3) == 6


async def test_a_call_after_closing_is_refused(
    broker: MemoryBroker, protocol: Protocol, double: Answer, autojump_clock: MockClock
) -> None:
    async with serve(broker, double):
        async with trio.open_nursery() as nursery, open_client(broker, protocol) as client:
            nursery.start_soon(_expect, UnavailableError, client)
            await trio.sleep(0.5)
        await _expect(UnavailableError, client)


async def test_the_queue_of_answers_goes_away_with_the_client(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async with open_client(broker, protocol):
        during = len(broker._store._queues)

    assert (during, len(broker._store._queues)) == (1, 0)


def test_the_broker_must_carry_answers() -> None:
    assert RpcClientDriver.requires(RpcClientConfig()) == {Capability.REQUEST_REPLY}


async def test_without_an_exchange_the_subject_names_the_queue(
    broker: MemoryBroker, protocol: Protocol, double: Answer, autojump_clock: MockClock
) -> None:
    async with serve(broker, double), open_client(broker, protocol, exchange="") as client:
        assert await client.call("sums", 4) == 8
        with pytest.raises(UnroutableError, match='there is no queue "differences"'):
            await client.call("differences", 4)


def test_without_an_exchange_there_is_nothing_to_bind_the_answers_to() -> None:
    with pytest.raises(ValueError, match=r"bind_replies = true needs an exchange"):
        RpcClientConfig(exchange="", bind_replies=True)
