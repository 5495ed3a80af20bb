"""Cases of `check_broker`: ordering by key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import trio

from .._core.envelope import Ack, DeadLetter, Envelope, Retry, Return
from ..abc import Capability, Delivery, Queue, Topology
from ..errors import ConflictError
from ._broker_bench import (
    DELAY,
    PATIENCE,
    QUIET,
    Bench,
    Promise,
    expect_quiet,
    refusal,
    take,
    take_acked,
    take_all,
    text_of,
)

_KEY: Final = "order-key"
_HEADER: Final = f"header:{_KEY}"


async def _put(bench: Bench, queue: str, *texts: str, delay: float = 0.0, priority: int = 0) -> None:
    """Send texts whose first letter is their key; one that begins with a dash has none."""
    await trio.lowlevel.checkpoint()
    for text in texts:
        headers = {} if text.startswith("-") else {_KEY: text[0]}
        envelope = Envelope(subject=queue, body=text.encode(), headers=headers, delay=delay, priority=priority)
        await bench.broker.send(envelope, exchange="", mandatory=True)


async def _take_texts(deliveries: AsyncIterator[Delivery], *texts: str) -> list[Delivery]:
    """Take as many deliveries as there are texts, and return them in the order of the texts."""
    taken = {text_of(delivery): delivery for delivery in await take_all(deliveries, len(texts))}
    assert set(taken) == set(texts), f"{sorted(taken)} were delivered instead of {sorted(texts)}"
    return [taken[text] for text in texts]


async def _one_at_a_time(bench: Bench) -> None:
    queue = await bench.queue(partition_by=_HEADER)
    await _put(bench, queue, "a1", "a2", "b1", "a3", "b2")
    async with bench.consume(queue) as deliveries:
        a1, b1 = await _take_texts(deliveries, "a1", "b1")
        async with bench.consume(queue) as others:
            await expect_quiet(others)
        await a1.settle(Ack())
        (a2,) = await _take_texts(deliveries, "a2")
        await b1.settle(Ack())
        (b2,) = await _take_texts(deliveries, "b2")
        await a2.settle(Ack())
        await b2.settle(Ack())
        assert await take_acked(deliveries, 1) == ["a3"]


async def _held_while_one_waits(bench: Bench) -> None:
    """A consumer that waits already must not be given what comes in behind an unsettled message of the key."""
    queue = await bench.queue(partition_by=_HEADER)
    late: list[str] = []
    async with bench.consume(queue) as deliveries, trio.open_nursery() as nursery:
        await _put(bench, queue, "a1")
        a1 = await take(deliveries)

        async def wait() -> None:
            late.extend(await take_acked(deliveries, 1))

        nursery.start_soon(wait)
        await trio.sleep(QUIET)
        await _put(bench, queue, "a2")
        await trio.sleep(QUIET)
        assert not late, "the second message of a key came while the first was not settled"
        await a1.settle(Ack())
    assert late == ["a2"]


async def _retry_keeps_its_place(bench: Bench) -> None:
    queue = await bench.queue(partition_by=_HEADER)
    await _put(bench, queue, "a1", "a2")
    async with bench.consume(queue) as deliveries:
        await (await take(deliveries)).settle(Retry())
        again = await take(deliveries)
        assert (text_of(again), again.attempt) == ("a1", 2), f"{text_of(again)!r} overtook the retry of its key"
        await again.settle(Return())
        assert await take_acked(deliveries, 2) == ["a1", "a2"], "a message overtook one of its key that was returned"


async def _retry_holds_its_key(bench: Bench) -> None:
    queue = await bench.queue(partition_by=_HEADER)
    await _put(bench, queue, "a1", "a2", "b1")
    async with bench.consume(queue, prefetch=1) as deliveries:
        start = trio.current_time()
        await (await take(deliveries)).settle(Retry(DELAY))
        await _put(bench, queue, "a3")
        assert await take_acked(deliveries, 4) == ["b1", "a1", "a2", "a3"]
    waited = trio.current_time() - start

    assert waited > DELAY * 0.9, f"a key was held for {waited:.2f} s while its first message waited for {DELAY:g} s"


async def _end_frees_its_key(bench: Bench) -> None:
    queue = await bench.queue(partition_by=_HEADER, dead_letters="dead")
    await _put(bench, queue, "a1", "a2")
    async with bench.consume(queue) as deliveries:
        await (await take(deliveries)).settle(DeadLetter("no use"))
        assert await take_acked(deliveries, 1) == ["a2"], "a dead letter holds its key"


async def _without_a_key(bench: Bench) -> None:
    queue = await bench.queue(partition_by=_HEADER)
    await _put(bench, queue, "-1", "-2", "-3")
    async with bench.consume(queue) as deliveries:
        for delivery in await _take_texts(deliveries, "-1", "-2", "-3"):
            await delivery.settle(Ack())


async def _by_subject(bench: Bench) -> None:
    queue = await bench.queue(partition_by="subject")
    exchange = await bench.bind(queue, "order.*")
    for subject, text in (("order.x", "x1"), ("order.x", "x2"), ("order.y", "y1")):
        await bench.broker.send(Envelope(subject=subject, body=text.encode()), exchange=exchange)
    async with bench.consume(queue) as deliveries:
        x1, y1 = await _take_texts(deliveries, "x1", "y1")
        await x1.settle(Ack())
        await y1.settle(Ack())
        assert await take_acked(deliveries, 1) == ["x2"]


async def _held_after_leaving(bench: Bench) -> None:
    queue = await bench.queue(partition_by=_HEADER)
    await _put(bench, queue, "a1", "a2", "b1")
    async with bench.consume(queue) as deliveries:
        a1, b1 = await _take_texts(deliveries, "a1", "b1")
    async with bench.consume(queue) as deliveries:
        await expect_quiet(deliveries)
    async with bench.consume(queue) as deliveries:
        await b1.settle(Ack())
        await a1.settle(Return())
        assert await take_acked(deliveries, 2) == ["a1", "a2"]


async def _order_before_priority(bench: Bench) -> None:
    queue = await bench.queue(partition_by=_HEADER)
    await _put(bench, queue, "a1")
    await _put(bench, queue, "a2", "b1", priority=9)
    async with bench.consume(queue, prefetch=1) as deliveries:
        got = await take_acked(deliveries, 3)

    assert got.index("a1") < got.index("a2"), f"came as {got}"
    assert got.index("b1") < got.index("a2"), f"came as {got}: the priority of another key does not count"


async def _delay_holds_nobody(bench: Bench) -> None:
    queue = await bench.queue(partition_by=_HEADER)
    await _put(bench, queue, "a1", delay=DELAY)
    await _put(bench, queue, "a2")
    async with bench.consume(queue) as deliveries:
        assert await take_acked(deliveries, 2) == ["a2", "a1"]


async def _many_keys(bench: Bench) -> None:
    """Three consumers, five keys, every third delivery tried again."""
    queue = await bench.queue(partition_by=_HEADER)
    wanted = {key: [f"{key}{number:02}" for number in range(12)] for key in "abcde"}
    await _put(bench, queue, *(text for texts in zip(*wanted.values(), strict=True) for text in texts))
    running: set[str] = set()
    finished = trio.Event()
    got: defaultdict[str, list[str]] = defaultdict(list)

    async def work(delivery: Delivery) -> None:
        text = text_of(delivery)
        assert text[0] not in running, f"{text} came while another message of its key was not settled"
        running.add(text[0])
        await trio.lowlevel.checkpoint()
        running.discard(text[0])
        if delivery.attempt == 1 and int(text[1:]) % 3 == 0:
            await delivery.settle(Retry())
        else:
            got[text[0]].append(text)
            await delivery.settle(Ack())
            if sum(map(len, got.values())) == 60:
                finished.set()

    async with trio.open_nursery() as nursery:

        async def consume() -> None:
            async with bench.consume(queue, prefetch=3) as deliveries, trio.open_nursery() as workers:
                async for delivery in deliveries:
                    workers.start_soon(work, delivery)

        for _ in range(3):
            nursery.start_soon(consume)
        with trio.move_on_after(2 * PATIENCE):
            await finished.wait()
        nursery.cancel_scope.cancel()

    assert dict(got) == wanted


async def _conflict(bench: Bench) -> None:
    name = await bench.queue(partition_by=_HEADER)
    other = Topology(queues=[Queue(name=name, durable=bench.durable, partition_by="subject")])
    refused = await refusal(ConflictError, partial(bench.broker.declare, other))
    assert refused is not None, "a queue was declared again with another `partition_by`"
    assert _HEADER in str(refused), f"the error does not name {_HEADER}: {refused}"


_KEYS = frozenset({Capability.ORDERING})
_DELAY = _KEYS | {Capability.DELAY}

KEYS = (
    Promise("of one key one message at a time is taken, in the order of sending", _one_at_a_time, _KEYS),
    Promise("who waits gets no message of a key that is taken", _held_while_one_waits, _KEYS),
    Promise("what is tried again or returned stays first of its key", _retry_keeps_its_place, _KEYS),
    Promise("a key is held while its first message waits for a retry", _retry_holds_its_key, _DELAY),
    Promise("a dead letter frees its key", _end_frees_its_key, _KEYS | {Capability.DEAD_LETTERS}),
    Promise("messages without a key are not ordered", _without_a_key, _KEYS),
    Promise("a subject may be the key", _by_subject, _KEYS),
    Promise("a key is held until its message is settled, even by who has left", _held_after_leaving, _KEYS),
    Promise("the order of a key is stronger than priorities", _order_before_priority, _KEYS | {Capability.PRIORITY}),
    Promise("a delayed message does not hold its key", _delay_holds_nobody, _DELAY),
    Promise("many consumers keep the order of many keys", _many_keys, _KEYS),
    Promise("a queue that exists with another `partition_by` is a conflict", _conflict, _KEYS),
)
