from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import structlog
import structlog.testing
import trio
from kernel_memory import MemoryBroker, MemoryConfig, MemoryDriver, MessageDropped
from trio.testing import MockClock

from kernel import Ack, DeadLetter, Envelope, Event, Outcome, Retry, Return
from kernel.abc import Binding, Capability, Delivery, Exchange, Queue, Subscription, Topology
from kernel.errors import ConflictError, QueueFullError, SettledError, UnavailableError, UnknownOutcomeError
from kernel.testing import fake_context

OUTCOMES: list[Outcome] = [Ack(), Retry(), Retry(2.0), DeadLetter("x"), Return()]


def memory(events: list[Event] | None = None, **config: Any) -> MemoryDriver:
    return MemoryDriver(config=MemoryConfig(**config), context=fake_context("driver/queue", events=events))


async def declare(broker: MemoryBroker, name: str = "q", **properties: Any) -> None:
    dead = [Queue(name=properties["dead_letters"])] if "dead_letters" in properties else []
    await broker.declare(Topology(queues=[*dead, Queue(name=name, **properties)]))


async def put(broker: MemoryBroker, *texts: str, queue: str = "q", **fields: Any) -> None:
    for text in texts:
        await broker.send(Envelope(subject=queue, body=text.encode(), **fields), exchange="", mandatory=True)


async def texts(broker: MemoryBroker, queue: str = "q") -> list[str]:
    return [delivery.envelope.body.decode() for delivery in await broker.peek(queue, limit=1_000_000)]


def wish(queue: str = "q", prefetch: int = 10) -> Subscription:
    return Subscription(queue=queue, prefetch=prefetch)


async def test_every_delivery_ends_in_exactly_one_count(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker, dead_letters="d")
        await put(broker, *(str(number) for number in range(100)))
        async with broker.subscribe(wish()) as deliveries:
            for number in range(150):
                await (await anext(deliveries)).settle(OUTCOMES[number % 5])
            open_ones = [await anext(deliveries) for _ in range(3)]
        stats = broker.stats

        assert stats.delivered == stats.acked + stats.returned + stats.retried + stats.dead + len(open_ones)
        assert (stats.acked, stats.returned, stats.retried, stats.dead, stats.unsettled) == (30, 30, 60, 30, 3)


@pytest.mark.parametrize("taken", [0, 1, 3])
async def test_what_ends_with_the_driver_is_told_of(autojump_clock: MockClock, taken: int) -> None:
    with structlog.testing.capture_logs() as logs:
        context = attrs.evolve(fake_context("driver/queue"), log=structlog.get_logger())
        async with MemoryDriver(config=MemoryConfig(), context=context).open() as broker:
            await declare(broker, dead_letters="d")
            await declare(broker, "mine", exclusive=True)
            await put(broker, "a", "b", "c")
            await put(broker, "answer", queue="mine")
            async with broker.subscribe(wish()) as deliveries:
                for _ in range(taken):
                    await (await anext(deliveries)).settle(Ack())
                if taken < 3:
                    await (await anext(deliveries)).settle(Return())

    left = {"queues": {"q": 3 - taken}, "event": "what queues still hold ends with the driver"}
    assert logs == ([{**left, "log_level": "warning"}] if taken < 3 else [])


async def test_what_is_under_way_when_the_broker_closes_counts_as_returned(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker)
        await put(broker, "a", "b")
        async with broker.subscribe(wish()) as deliveries:
            first, second = await anext(deliveries), await anext(deliveries)
            await first.settle(Ack())
    assert (broker.stats.acked, broker.stats.returned, broker.stats.unsettled) == (1, 1, 0)

    with pytest.raises(UnknownOutcomeError):
        await second.settle(Ack())


async def test_after_closing_everything_is_unavailable(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker)

    with pytest.raises(UnavailableError):
        await declare(broker)
    with pytest.raises(UnavailableError):
        await put(broker, "a")
    with pytest.raises(UnavailableError):
        await broker.peek("q")
    with pytest.raises(UnavailableError):
        async with broker.subscribe(wish()):
            pass


async def test_closing_wakes_who_waits_for_a_message(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker)
        async with broker.subscribe(wish(prefetch=1)) as deliveries, trio.open_nursery() as nursery:
            for _ in range(2):  # one waits for a message, the other for a place
                nursery.start_soon(_expect_unavailable, deliveries)
            await trio.sleep(1)
            broker.close()


async def _expect_unavailable(deliveries: AsyncIterator[Delivery]) -> None:
    with pytest.raises(UnavailableError):
        await anext(deliveries)


async def test_a_driver_that_starts_again_begins_with_nothing(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker)
        await put(broker, "a")
    async with memory().open() as broker:
        with pytest.raises(ConflictError, match='no queue "q"'):
            await broker.peek("q")


async def test_a_flood_stops_at_the_bound_that_the_driver_sets(autojump_clock: MockClock) -> None:
    async with memory(max_length=100).open() as broker:
        await declare(broker)
        refused = 0
        for number in range(1000):
            try:
                await put(broker, str(number))
            except QueueFullError:
                refused += 1

        assert (refused, len(await texts(broker))) == (900, 100)


async def test_delayed_messages_count_towards_the_bound(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker, max_length=2)
        await put(broker, "a", "b", delay=60.0)
        with pytest.raises(QueueFullError, match='"q" is full: it holds 2'):
            await put(broker, "c")
        await trio.sleep(61)

        assert await texts(broker) == ["a", "b"]


async def test_where_all_is_delayed_the_oldest_of_those_is_dropped(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker, max_length=1, overflow="drop_oldest", dead_letters="d")
        await put(broker, "a", "b", delay=60.0)
        await trio.sleep(61)

        assert (await texts(broker), await texts(broker, "d")) == (["b"], ["a"])


async def test_the_oldest_is_dropped_whatever_its_priority(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker, max_length=2, overflow="drop_oldest")
        await put(broker, "old", priority=9)
        await put(broker, "b", "c")

        assert await texts(broker) == ["b", "c"]


async def test_a_full_dead_letter_queue_drops_its_oldest_and_says_so(autojump_clock: MockClock) -> None:
    events: list[Event] = []
    async with memory(events, max_length=2).open() as broker:
        await declare(broker, dead_letters="d")
        async with broker.subscribe(wish()) as deliveries:
            for text in "abc":
                await put(broker, text, id=text)
                await (await anext(deliveries)).settle(DeadLetter("bad"))

        assert await texts(broker, "d") == ["b", "c"]
    assert events == [
        MessageDropped(component="driver/queue", queue="d", reason="overflow", message_id="a", subject="q")
    ]


async def test_two_full_queues_that_bury_into_each_other_come_to_rest(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        bound: dict[str, Any] = {"max_length": 1, "overflow": "drop_oldest"}
        await broker.declare(
            Topology(queues=[Queue(name="q", dead_letters="d", **bound), Queue(name="d", dead_letters="q", **bound)])
        )
        await put(broker, *"abcd")

        assert (await texts(broker), await texts(broker, "d")) == (["d"], ["c"])
        assert broker.stats.dropped == 2


async def test_without_a_dead_letter_queue_an_event_says_what_was_lost(autojump_clock: MockClock) -> None:
    events: list[Event] = []
    async with memory(events).open() as broker:
        await declare(broker, ttl=1.0)
        await put(broker, "a", id="1")
        await trio.sleep(2)

        assert (broker.stats.expired, broker.stats.dropped) == (1, 1)
    assert events == [
        MessageDropped(component="driver/queue", queue="q", reason="expired", message_id="1", subject="q")
    ]


async def test_messages_expire_without_any_consumer(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker, ttl=10.0, dead_letters="d")
        await put(broker, "a")
        await trio.sleep(9)
        before = await texts(broker)
        await trio.sleep(2)

        assert (before, await texts(broker), await texts(broker, "d")) == (["a"], [], ["a"])


async def test_a_message_sent_after_its_deadline_goes_to_the_dead_letters(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker, dead_letters="d")
        await put(broker, "a", deadline=trio.current_time() - 1)

        assert (await texts(broker), await texts(broker, "d")) == ([], ["a"])


async def test_the_life_of_a_delayed_message_begins_after_its_delay(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker, ttl=5.0)
        await put(broker, "a", delay=60.0)
        await trio.sleep(61)

        assert await texts(broker) == ["a"]


async def test_a_returned_message_keeps_the_end_of_its_life(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker, ttl=5.0, dead_letters="d")
        await put(broker, "a")
        async with broker.subscribe(wish()) as deliveries:
            await trio.sleep(3)
            delivery = await anext(deliveries)
        await delivery.settle(Return())
        await trio.sleep(3)

        assert (await texts(broker), await texts(broker, "d")) == ([], ["a"])


async def test_messages_returned_in_any_order_stand_as_they_stood(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker)
        await put(broker, *"abcd")
        async with broker.subscribe(wish()) as deliveries:
            taken = [await anext(deliveries) for _ in range(3)]
        for index in (1, 2, 0):
            await taken[index].settle(Return())

        assert await texts(broker) == ["a", "b", "c", "d"]


async def test_consumers_who_share_a_queue_take_turns(autojump_clock: MockClock) -> None:
    takers: list[int] = []
    async with memory().open() as broker, trio.open_nursery() as nursery:
        await declare(broker)

        async def consume(number: int) -> None:
            async with broker.subscribe(wish(prefetch=1)) as deliveries:
                async for delivery in deliveries:
                    takers.append(number)
                    await delivery.settle(Ack())

        nursery.start_soon(consume, 0)
        nursery.start_soon(consume, 1)
        await trio.sleep(1)
        await put(broker, *map(str, range(100)))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert len(takers) == 100
    assert max(len(list(run)) for _, run in itertools.groupby(takers)) < 6


async def test_a_wait_that_was_cancelled_gives_its_place_back(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker)
        async with broker.subscribe(wish(prefetch=1)) as deliveries, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(_wait_a_second, deliveries)
            await trio.sleep(2)
            await put(broker, "a")
            with trio.fail_after(1):
                await (await anext(deliveries)).settle(Ack())

        assert (broker.stats.delivered, broker.stats.acked) == (1, 1)


async def _wait_a_second(deliveries: AsyncIterator[Delivery]) -> None:
    with trio.move_on_after(1):
        await anext(deliveries)


async def test_a_sender_lets_other_tasks_run(autojump_clock: MockClock) -> None:
    """Each send is a cheap checkpoint; one in 32 lets others have their turn."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with memory().open() as broker, trio.open_nursery() as nursery:
        await declare(broker)
        nursery.start_soon(count)
        await put(broker, *map(str, range(320)))
        assert turns >= 8
        nursery.cancel_scope.cancel()


async def test_a_settled_delivery_stays_settled_whoever_asks(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker)
        await put(broker, "a")
        async with broker.subscribe(wish()) as deliveries:
            delivery = await anext(deliveries)
        errors: list[Exception] = []

        async def settle() -> None:
            try:
                await delivery.settle(Ack())
            except SettledError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(settle)

        assert (len(errors), broker.stats.acked) == (9, 1)


async def test_what_is_looked_at_cannot_be_settled(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker)
        await put(broker, "a")
        [seen] = await broker.peek("q")
        with pytest.raises(SettledError, match="only looked at"):
            await seen.settle(Ack())

        assert (seen.attempt, seen.redelivered) == (1, False)


async def test_a_return_to_a_queue_that_is_gone_is_dropped_with_an_event(autojump_clock: MockClock) -> None:
    events: list[Event] = []
    async with memory(events).open() as broker:
        await declare(broker, exclusive=True)
        await put(broker, "a", "left behind")
        async with broker.subscribe(wish()) as deliveries:
            delivery = await anext(deliveries)
        await delivery.settle(Return())

    assert [event.reason for event in events if isinstance(event, MessageDropped)] == ["its queue is gone"]


@pytest.mark.parametrize(
    ("topology", "text"),
    [
        (Topology(queues=[Queue(name="q", dead_letters="nowhere")]), '"nowhere", which nobody declared'),
        (Topology(bindings=[Binding(queue="q", exchange="e", pattern="#")]), 'no exchange "e"'),
        (
            Topology(exchanges=[Exchange(name="e")], bindings=[Binding(queue="q", exchange="e", pattern="#")]),
            'no queue "q" to bind',
        ),
    ],
    ids=["dead letters", "exchange", "queue"],
)
async def test_a_topology_that_is_refused_leaves_nothing_behind(
    topology: Topology, text: str, autojump_clock: MockClock
) -> None:
    async with memory().open() as broker:
        with pytest.raises(ConflictError, match=text):
            await broker.declare(topology)
        with pytest.raises(ConflictError, match='no queue "q"'):
            await broker.peek("q")


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"ttl": 5.0}, "ttl = 1.0, and is asked for with 5.0"),
        ({"ttl": 1.0, "overflow": "drop_oldest"}, "overflow = 'refuse', and is asked for with 'drop_oldest'"),
        ({"ttl": 1.0, "durable": False}, "durable = True, and is asked for with False"),
    ],
)
async def test_a_conflict_names_both_values(other: dict[str, Any], text: str, autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker, ttl=1.0)
        with pytest.raises(ConflictError, match=text):
            await declare(broker, **other)


async def test_values_out_of_range_are_refused(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker)
        with pytest.raises(ValueError, match="priority is 0 to 9, not 10"):
            await put(broker, "a", priority=10)
        with pytest.raises(ValueError, match="prefetch must be 1 or more"):
            async with broker.subscribe(wish(prefetch=0)):
                pass
    with pytest.raises(ValueError, match="max_length"):
        MemoryConfig(max_length=0)


async def test_timers_of_messages_that_went_do_not_pile_up(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker)
        async with broker.subscribe(wish(prefetch=1)) as deliveries:
            for number in range(2000):
                await put(broker, str(number), deadline=trio.current_time() + 3600)
                await (await anext(deliveries)).settle(Ack())

        assert len(broker._store.timers._heap) < 200


async def test_messages_that_expired_behind_another_do_not_pile_up(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker)
        await put(broker, "stays")
        for number in range(500):
            await put(broker, str(number), deadline=trio.current_time() + 0.5)
            await trio.sleep(1)
        ready = broker._store.queue("q")._ready

        assert await texts(broker) == ["stays"]
        assert sum(map(len, ready._levels)) < 200


async def test_made_up_subjects_do_not_fill_the_memory(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await broker.declare(Topology(exchanges=[Exchange(name="e")]))
        for number in range(5000):
            await broker.send(Envelope(subject=f"user.{number}"), exchange="e")

        assert len(broker._store._exchanges["e"]._routes) <= 1024


async def test_all_timers_together_take_one_task(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker)
        before = trio.lowlevel.current_statistics().tasks_living
        await put(broker, *map(str, range(500)), delay=60.0)

        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_random_traffic_keeps_the_books(autojump_clock: MockClock) -> None:
    """Senders, consumers that settle in every way, and visitors who come and go: at the end all adds up."""
    async with memory().open() as broker:
        await declare(broker, dead_letters="d", max_length=50)
        sent = 0

        async def send() -> None:
            nonlocal sent
            for number in range(200):
                try:
                    await put(broker, str(number), delay=number % 3 * 0.1)
                    sent += 1
                except QueueFullError:
                    await trio.sleep(0.5)

        async def consume(number: int) -> None:
            for turn in range(100):
                with trio.move_on_after(0.05 + number * 0.03):
                    async with broker.subscribe(wish(prefetch=number + 1)) as deliveries:
                        async for delivery in deliveries:
                            outcome = OUTCOMES[(turn + number) % 5]
                            with trio.CancelScope(shield=True):
                                await trio.sleep(0.02)
                                await delivery.settle(outcome)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for number in range(3):
                nursery.start_soon(consume, number)
        await trio.sleep(10)
        stats = broker.stats

        assert stats.unsettled == 0
        assert stats.sent == sent == stats.acked + stats.dead + len(await texts(broker))
        assert len(await texts(broker, "d")) + stats.displaced == stats.dead


def test_what_memory_cannot_do_is_not_claimed() -> None:
    assert not MemoryDriver.capabilities & {Capability.DURABLE, Capability.TRANSACTION}
    assert MemoryDriver.provides is MemoryBroker
    assert attrs.has(MemoryDriver.Config)
