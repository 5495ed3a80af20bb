from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from kernel_memory import MemoryBroker
from kernel_messaging import ConsumerConfig, ConsumerDispatcher
from trio.testing import MockClock

from kernel import Ack, DeadLetter, Envelope, Outcome
from kernel.abc import Broker, Capability, Delivery, Protocol, Subscription, Topology
from kernel.errors import ConflictError, StartupError, SubscriptionLostError, UnavailableError
from kernel.testing import RecordingIntake, fake_context, open_intake


def consumer(broker: MemoryBroker, protocol: Protocol, **config: Any) -> ConsumerDispatcher:
    context = fake_context("dispatcher/orders", driver=broker, protocol=protocol)
    return ConsumerDispatcher(config=ConsumerConfig(queue="orders", **config), context=context)


async def put(broker: MemoryBroker, *texts: str) -> None:
    for text in texts:
        await broker.send(Envelope(subject="order.created", body=text.encode()), exchange="events", mandatory=True)


def texts(intake: RecordingIntake) -> list[str]:
    return [settled.delivery.envelope.body.decode() for settled in intake.settled]


async def reject(_delivery: Delivery) -> Outcome:
    await trio.lowlevel.checkpoint()
    return DeadLetter("no good")


async def hold(_delivery: Delivery) -> Outcome:
    await trio.sleep_forever()
    raise AssertionError


async def test_what_matches_a_binding_is_handled_and_acknowledged(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    dispatcher = consumer(broker, protocol, bindings=("order.*",))
    async with dispatcher.open(), open_intake() as intake, trio.open_nursery() as nursery:
        await nursery.start(dispatcher.accept, intake)
        await put(broker, "a", "b")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert texts(intake) == ["a", "b"]
    assert (broker.stats.acked, broker.stats.unsettled) == (2, 0)


async def test_not_more_is_taken_than_may_be_in_flight(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    dispatcher = consumer(broker, protocol, bindings=("#",))
    async with dispatcher.open(), open_intake(concurrency=3, answer=hold) as intake, trio.open_nursery() as nursery:
        await nursery.start(dispatcher.accept, intake)
        await put(broker, *"abcdefgh")
        await trio.sleep(1)
        taken, waiting = len(intake.taken), len(await broker.peek("orders"))
        nursery.cancel_scope.cancel()
        intake.cut()

    assert (taken, waiting) == (3, 5)


async def test_when_accepting_stops_all_that_is_not_done_is_in_the_queue(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    dispatcher = consumer(broker, protocol, bindings=("#",))
    async with dispatcher.open():
        async with open_intake(concurrency=2, answer=hold) as intake, trio.open_nursery() as nursery:
            await nursery.start(dispatcher.accept, intake)
            await put(broker, *"abcd")
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
            intake.cut()
        left = await broker.peek("orders")

    assert [delivery.envelope.body for delivery in left] == [b"a", b"b", b"c", b"d"]
    assert {delivery.attempt for delivery in left} == {1}


async def test_a_dead_letter_queue_is_made_by_default(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    dispatcher = consumer(broker, protocol, bindings=("#",))
    async with dispatcher.open(), open_intake(answer=reject) as intake, trio.open_nursery() as nursery:
        await nursery.start(dispatcher.accept, intake)
        await put(broker, "bad")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    [letter] = await broker.peek("orders.dead")

    assert letter.envelope.headers["kernel-death-reason"] == "no good"


async def test_without_a_dead_letter_queue_none_is_made(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async with consumer(broker, protocol, dead_letters="").open():
        with pytest.raises(ConflictError):
            await broker.peek("orders.dead")


async def test_dead_letters_can_be_consumed_by_a_consumer_of_their_own(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    context = fake_context("dispatcher/failed", driver=broker, protocol=protocol)
    failed = ConsumerDispatcher(config=ConsumerConfig(queue="orders.dead", dead_letters=""), context=context)

    async with consumer(broker, protocol).open(), failed.open():
        assert await broker.peek("orders.dead") == []


async def test_opening_twice_is_fine_and_another_length_is_a_conflict(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async with consumer(broker, protocol, max_length=5).open():
        async with consumer(broker, protocol, max_length=5).open():
            pass
        with pytest.raises(StartupError, match=r"max_length = 5, .* with 6"):
            async with consumer(broker, protocol, max_length=6).open():
                pass


async def test_without_declare_the_queue_must_exist(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    dispatcher = consumer(broker, protocol, declare=False)
    async with dispatcher.open(), open_intake() as intake:
        with pytest.raises(
            ConflictError, match=r'no queue "orders"; `declare = false` leaves it .* leave that key out here'
        ):
            await dispatcher.accept(intake, task_status=trio.TASK_STATUS_IGNORED)


async def test_a_broken_subscription_raises(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    dispatcher = consumer(broker, protocol)
    async with dispatcher.open(), open_intake() as intake, trio.open_nursery() as nursery:
        nursery.start_soon(_close_later, broker)
        with pytest.raises(UnavailableError):
            await dispatcher.accept(intake, task_status=trio.TASK_STATUS_IGNORED)


async def _close_later(broker: MemoryBroker) -> None:
    await trio.sleep(1)
    broker.close()


@pytest.mark.parametrize(
    ("config", "needed"),
    [
        ({"dead_letters": ""}, set()),
        ({}, {Capability.DEAD_LETTERS}),
        ({"dead_letters": "", "durable": True}, {Capability.DURABLE}),
        ({"dead_letters": "", "durable": False}, set()),
        ({"dead_letters": "", "max_length": 3}, {Capability.MAX_LENGTH}),
        ({"dead_letters": "", "ttl": 3.0}, {Capability.TTL}),
        ({"dead_letters": "", "partition_by": "subject"}, {Capability.ORDERING}),
        ({"dead_letters": "", "deduplication_window": 3.0}, {Capability.DEDUPLICATION}),
    ],
)
def test_what_the_broker_must_be_able_to_do_follows_from_the_config(
    config: dict[str, Any], needed: set[Capability]
) -> None:
    assert ConsumerDispatcher.requires(ConsumerConfig(queue="orders", **config)) == needed


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"dead_letters": "orders"}, "`dead_letters` names the queue itself"),
        ({"overflow": "drop_oldest"}, "`overflow` without `max_length`"),
        ({"partition_by": "subject", "declare": False}, "`partition_by` has no effect"),
        ({"deduplication_window": 1.0, "declare": False}, "`deduplication_window` has no effect"),
    ],
)
def test_settings_that_contradict_each_other_are_problems(config: dict[str, Any], problem: str) -> None:
    [text] = ConsumerDispatcher.check(ConsumerConfig(queue="orders", **config))

    assert text.startswith(problem)


@pytest.mark.parametrize(
    "config",
    [
        {"queue": ""},
        {"max_length": 0},
        {"ttl": 0.0},
        {"overflow": "drop"},
        {"exchange": ""},
        {"partition_by": "key"},
        {"partition_by": "header:"},
        {"deduplication_window": -1.0},
        {"deduplication_window": float("inf")},
    ],
)
def test_values_out_of_range_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(config))):
        ConsumerConfig(**{"queue": "orders", **config})


async def test_a_delivery_in_flight_is_settled_after_accepting_has_stopped(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async def slowly(_delivery: Delivery) -> Outcome:
        await trio.sleep(5)
        return Ack()

    dispatcher = consumer(broker, protocol, bindings=("#",))
    async with dispatcher.open(), open_intake(answer=slowly) as intake, trio.open_nursery() as nursery:
        await nursery.start(dispatcher.accept, intake)
        await put(broker, "a")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert attrs.asdict(broker.stats)["acked"] == 1
    assert [settled.error for settled in intake.settled] == [None]


async def test_messages_of_one_key_are_handled_one_after_the_other_and_repeated_ones_once(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    began: list[tuple[float, str]] = []

    async def slowly(delivery: Delivery) -> Outcome:
        began.append((trio.current_time() - start, delivery.envelope.id))
        await trio.sleep(5)
        return Ack()

    dispatcher = consumer(broker, protocol, bindings=("#",), partition_by="header:customer", deduplication_window=60.0)
    async with (
        dispatcher.open(),
        open_intake(answer=slowly, concurrency=9) as intake,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(dispatcher.accept, intake)
        start = trio.current_time()
        for id_, customer in (("1", "ann"), ("2", "ann"), ("2", "ann"), ("3", "bob"), ("1", "ann")):
            await broker.send(Envelope(subject="x", id=id_, headers={"customer": customer}), exchange="events")
        await trio.sleep(20)
        nursery.cancel_scope.cancel()

    assert sorted(began) == [(0, "1"), (0, "3"), (5, "2")]


class Flapping(Broker):
    """Loses each subscription after one delivery."""

    def __init__(self, inner: MemoryBroker) -> None:
        self.inner = inner
        self.subscribed = 0

    async def declare(self, topology: Topology) -> None:
        await self.inner.declare(topology)

    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        await self.inner.send(envelope, exchange=exchange, mandatory=mandatory)

    @asynccontextmanager
    async def subscribe(self, subscription: Subscription) -> AsyncGenerator[AsyncIterator[Delivery]]:
        self.subscribed += 1
        async with self.inner.subscribe(subscription) as deliveries:
            yield self._one(deliveries)

    async def _one(self, deliveries: AsyncIterator[Delivery]) -> AsyncGenerator[Delivery]:
        yield await anext(deliveries)
        raise SubscriptionLostError("the connection is gone")


async def test_a_subscription_that_is_lost_with_its_connection_is_made_again_and_nobody_notices(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    flapping: Any = Flapping(broker)
    dispatcher = consumer(flapping, protocol, bindings=("#",))
    async with dispatcher.open(), open_intake() as intake, trio.open_nursery() as nursery:
        await nursery.start(dispatcher.accept, intake)
        await put(broker, *"abcdefgh")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert texts(intake) == list("abcdefgh")
    assert flapping.subscribed == 9


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"queue": "q" * 256}, r"'queue' must have at most 255 bytes in UTF-8, and has 256"),
        ({"queue": "q" * 251}, r"'queue' must leave room for its dead letters.*and it has 256"),
        ({"queue": "ж" * 126}, r"'queue' must leave room for its dead letters.*and it has 257"),
        ({"queue": "q", "dead_letters": "q" * 256}, r"'dead_letters' must have at most 255 bytes"),
        ({"queue": "q", "exchange": "e" * 256}, r"'exchange' must have at most 255 bytes"),
        ({"queue": "q", "bindings": ("b" * 256,)}, r"'bindings' must have at most 255 bytes"),
    ],
)
def test_a_name_that_no_broker_takes_is_refused_with_its_key(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ConsumerConfig(**keys)


def test_a_queue_without_dead_letters_may_be_as_long_as_any() -> None:
    assert ConsumerConfig(queue="q" * 255, dead_letters="").dead_letter_queue == ""
