"""Ordering by key and deduplication in memory: what the conformance check cannot see from outside."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
import trio
from kernel_memory import MemoryBroker, MemoryConfig, MemoryDriver, MessageDropped
from trio.testing import MockClock

from kernel import Ack, DeadLetter, Envelope, Event, Outcome, Retry, Return
from kernel.abc import Delivery, Queue, Subscription, Topology
from kernel.errors import QueueFullError
from kernel.testing import fake_context

WISH = Subscription(queue="q", prefetch=10)


def memory(events: list[Event] | None = None, **config: Any) -> MemoryDriver:
    return MemoryDriver(config=MemoryConfig(**config), context=fake_context("driver/queue", events=events))


async def declare(broker: MemoryBroker, **properties: Any) -> None:
    await broker.declare(Topology(queues=[Queue(name="dead"), Queue(name="q", dead_letters="dead", **properties)]))


async def put(broker: MemoryBroker, *texts: str, **fields: Any) -> None:
    for text in texts:
        headers = {"key": text[0]}
        await broker.send(Envelope(subject="q", body=text.encode(), headers=headers, **fields), exchange="")


async def texts(broker: MemoryBroker, queue: str = "q") -> list[str]:
    return [delivery.envelope.body.decode() for delivery in await broker.peek(queue, limit=1_000_000)]


async def test_what_waits_behind_its_key_counts_and_is_seen() -> None:
    async with memory().open() as broker:
        await declare(broker, partition_by="header:key", max_length=3)
        await put(broker, "a1", "a2", "b1")

        with pytest.raises(QueueFullError):
            await put(broker, "c1")
        assert sorted(await texts(broker)) == ["a1", "a2", "b1"]


async def test_the_oldest_is_dropped_though_it_is_first_of_its_key_or_waits_behind_it() -> None:
    async with memory().open() as broker:
        await declare(broker, partition_by="header:key", max_length=2, overflow="drop_oldest")
        await put(broker, "a1", "a2", "b1", "a3")
        async with broker.subscribe(WISH) as deliveries:
            taken = [await anext(deliveries), await anext(deliveries)]
            await put(broker, "a4", "a5", "a6")

            assert [delivery.envelope.body for delivery in taken] == [b"b1", b"a3"]
            assert await texts(broker) == ["a5", "a6"]
            assert await texts(broker, "dead") == ["a1", "a2", "a4"]


async def test_what_expires_behind_its_key_is_put_aside_in_time_and_holds_nobody(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker, partition_by="header:key", ttl=5.0)
        await put(broker, "a1")
        async with broker.subscribe(WISH) as deliveries:
            first = await anext(deliveries)
            await put(broker, "a2")
            await trio.sleep(4)
            await put(broker, "a3")
            await trio.sleep(2)
            assert await texts(broker, "dead") == ["a2"]
            await first.settle(Ack())
            following = await anext(deliveries)
            await following.settle(Ack())

        assert following.envelope.body == b"a3"


async def test_thousands_that_are_over_at_once_are_all_put_aside(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker, partition_by="header:key")
        await put(broker, *("a" for _ in range(5000)), deadline=trio.current_time() + 1)
        await trio.sleep(2)

        assert len(await texts(broker, "dead")) == 5000
        assert await texts(broker) == []


async def test_a_key_that_ended_leaves_nothing_behind() -> None:
    async with memory().open() as broker:
        await declare(broker, partition_by="header:key")
        await put(broker, *"abcdef", "a2", "b2")
        async with broker.subscribe(WISH) as deliveries:
            for _ in range(8):
                await (await anext(deliveries)).settle(Ack())
        lanes = broker._store.queue("q")._lanes

        assert lanes is not None
        assert (lanes._firsts, lanes._lines, list(lanes.behind)) == ({}, {}, [])


@pytest.mark.parametrize("seed", range(20))
async def test_no_key_is_ever_out_of_order(seed: int, autojump_clock: MockClock) -> None:
    """Several consumers that acknowledge, retry, return and dead-letter as chance has it, with priorities."""
    chance = random.Random(seed)
    sent: defaultdict[str, list[str]] = defaultdict(list)
    ended: defaultdict[str, list[str]] = defaultdict(list)
    running: set[str] = set()

    async def work(delivery: Delivery) -> None:
        text = delivery.envelope.body.decode()
        assert text[0] not in running
        running.add(text[0])
        await trio.sleep(chance.random())
        running.remove(text[0])
        outcomes: list[Outcome] = [Ack(), Ack(), Retry(), Retry(chance.random()), Return(), DeadLetter("no")]
        outcome = chance.choice(outcomes)
        if isinstance(outcome, Ack | DeadLetter):
            ended[text[0]].append(text)
        await delivery.settle(outcome)

    async with memory().open() as broker, trio.open_nursery() as nursery:
        await declare(broker, partition_by="header:key")

        async def consume() -> None:
            subscription = Subscription(queue="q", prefetch=chance.randint(1, 4))
            async with broker.subscribe(subscription) as deliveries, trio.open_nursery() as workers:
                async for delivery in deliveries:
                    workers.start_soon(work, delivery)

        for _ in range(3):
            nursery.start_soon(consume)
        for number in range(120):
            text = f"{chance.choice('abcd')}{number}"
            sent[text[0]].append(text)
            await put(broker, text, priority=chance.randrange(10))
            await trio.sleep(chance.random() / 5)
        await trio.sleep(1000)
        nursery.cancel_scope.cancel()

    assert ended == sent


async def test_a_duplicate_is_counted_and_told() -> None:
    events: list[Event] = []
    async with memory(events).open() as broker:
        await declare(broker, deduplication_window=60.0)
        await put(broker, "a", "b", id="7")

        assert (broker.stats.sent, broker.stats.duplicates, broker.stats.dropped) == (1, 1, 0)
    told = [event for event in events if isinstance(event, MessageDropped)]
    assert [(event.queue, event.reason, event.message_id) for event in told] == [("q", "duplicate", "7")]


async def test_the_ids_that_a_queue_remembers_are_bounded() -> None:
    async with memory(deduplication_limit=3).open() as broker:
        await declare(broker, deduplication_window=60.0)
        for id_ in ("1", "2", "3", "4", "3", "1"):
            await put(broker, "a", id=id_)
        seen = broker._store.queue("q").seen

        assert broker.stats.sent == 5
        assert seen is not None
        assert (len(seen), seen.forgotten) == (3, 2)


async def test_ids_are_forgotten_when_their_window_is_over(autojump_clock: MockClock) -> None:
    async with memory().open() as broker:
        await declare(broker, deduplication_window=1.0)
        for number in range(100):
            await put(broker, "a", id=str(number))
            await trio.sleep(0.5)
        seen = broker._store.queue("q").seen

        assert seen is not None
        assert (len(seen), seen.forgotten) == (2, 0)
