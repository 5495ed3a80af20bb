"""Cases of `check_broker`: messages that are sent twice, dead letters that die twice, and ends that come in a wait."""

from __future__ import annotations

from functools import partial
from typing import Final, cast

import trio

from .._core.envelope import Ack, DeadLetter, Envelope, Retry, Return, new_id
from ..abc import MAX_DEATHS, Capability, Delivery, Queue, Topology
from ..errors import ConflictError, QueueFullError
from ._broker_bench import DELAY, QUIET, Bench, Promise, headers_of, refusal, take, take_acked, text_of

_WINDOW: Final = 60.0
"""Seconds; longer than any of these cases takes."""


async def _put(bench: Bench, queue: str, text: str, id_: str) -> None:
    await bench.broker.send(Envelope(subject=queue, body=text.encode(), id=id_), exchange="", mandatory=True)


async def _duplicate(bench: Bench) -> None:
    queue, first, second = await bench.queue(deduplication_window=_WINDOW), new_id(), new_id()
    for text, id_ in (("a", first), ("again", first), ("b", second), ("again", second)):
        await _put(bench, queue, text, id_)
    assert await bench.drain(queue) == ["a", "b"]
    await _put(bench, queue, "again", first)

    assert await bench.drain(queue) == [], "a message came again although its id had been taken and acknowledged"


async def _window_ends(bench: Bench) -> None:
    queue, id_ = await bench.queue(deduplication_window=DELAY), new_id()
    await _put(bench, queue, "a", id_)
    await trio.sleep(DELAY / 2)
    await _put(bench, queue, "again", id_)
    await trio.sleep(DELAY)
    await _put(bench, queue, "b", id_)

    assert await bench.drain(queue) == ["a", "b"], "the window begins with the first message and is not made longer"


async def _each_queue(bench: Bench) -> None:
    once, every = await bench.queue("once", deduplication_window=_WINDOW), await bench.queue("every")
    await bench.bind(once, "x")
    exchange, id_ = await bench.bind(every, "x"), new_id()
    await _put(bench, once, "a", id_)
    for text in ("b", "c"):
        await bench.broker.send(Envelope(subject="x", body=text.encode(), id=id_), exchange=exchange, mandatory=True)

    assert await bench.drain(once) == ["a"]
    assert await bench.drain(every) == ["b", "c"], "a queue without a window takes all"


async def _again_is_no_duplicate(bench: Bench) -> None:
    queue = await bench.queue(deduplication_window=_WINDOW)
    await bench.put(queue, "a")
    async with bench.consume(queue) as deliveries:
        await (await take(deliveries)).settle(Retry())
        await (await take(deliveries)).settle(Return())
        again = await take(deliveries)
        assert again.attempt == 2
        await again.settle(Ack())


async def _full(bench: Bench) -> None:
    queue, id_, other = await bench.queue(max_length=1, deduplication_window=_WINDOW), new_id(), new_id()
    await _put(bench, queue, "a", id_)
    assert await refusal(QueueFullError, partial(_put, bench, queue, "b", other)) is not None
    await _put(bench, queue, "again", id_)
    assert await bench.drain(queue) == ["a"]
    await _put(bench, queue, "b", other)

    assert await bench.drain(queue) == ["b"], "a message that was refused was remembered as if it had been taken"


async def _conflict(bench: Bench) -> None:
    name = await bench.queue(deduplication_window=_WINDOW)
    other = Topology(queues=[Queue(name=name, durable=bench.durable)])
    refused = await refusal(ConflictError, partial(bench.broker.declare, other))
    assert refused is not None, "a queue was declared again with another window"


async def _dead_of(bench: Bench, queue: str, reason: str, dead: str) -> Delivery:
    """Dead-letter the first message of a queue and take it from where it goes, unsettled."""
    async with bench.consume(queue) as deliveries:
        await (await take(deliveries)).settle(DeadLetter(reason))
    async with bench.consume(dead) as letters:
        return await take(letters)


async def _dies_twice(bench: Bench) -> None:
    last, middle, queue = bench.name("last"), bench.name("middle"), bench.name("queue")
    queues = [Queue(name=last, durable=bench.durable), Queue(name=middle, durable=bench.durable, dead_letters=last)]
    await bench.broker.declare(
        Topology(queues=[*queues, Queue(name=queue, durable=bench.durable, dead_letters=middle)])
    )
    await bench.put(queue, "a")
    letter = await _dead_of(bench, queue, "first", middle)
    assert "kernel-death-history" not in headers_of(letter), "a first death has no history"
    await letter.settle(Retry())
    letter = await _dead_of(bench, middle, "second", last)
    await letter.settle(Ack())

    headers = headers_of(letter)
    history = [{"reason": "first", "queue": queue, "attempts": 1, "subject": queue}]
    assert headers.get("kernel-death-history") == history, f"the history is {headers.get('kernel-death-history')}"
    assert (headers["kernel-death-reason"], headers["kernel-death-queue"]) == ("second", middle)
    assert headers["kernel-death-attempts"] == 2, f"{headers['kernel-death-attempts']} attempts of 2 were counted"


async def _dies_often(bench: Bench) -> None:
    """A letter that goes round for ever must not grow for ever."""
    queue, dead = await bench.queue(dead_letters="dead"), bench.name("dead")
    await bench.put(queue, "a")
    headers: dict[str, object] = {}
    for number in range(MAX_DEATHS + 3):
        letter = await _dead_of(bench, queue, str(number), dead)
        headers = headers_of(letter)
        await bench.broker.send(Envelope(subject=queue, body=b"a", headers=headers), exchange="")
        await letter.settle(Ack())

    history = cast("list[dict[str, object]]", headers["kernel-death-history"])
    assert len(history) == MAX_DEATHS, f"it tells of {len(history)} deaths"
    assert history[-1]["reason"] == str(MAX_DEATHS + 1), f"the latest is {history[-1]}"


async def _deadline_in_a_retry(bench: Bench) -> None:
    queue = await bench.queue(dead_letters="dead")
    late = Envelope(subject=queue, body=b"late", deadline=trio.current_time() + DELAY)
    await bench.broker.send(late, exchange="")
    async with bench.consume(queue) as deliveries, bench.consume(bench.name("dead")) as dead:
        await (await take(deliveries)).settle(Retry(DELAY + QUIET))
        await bench.put(queue, "next")
        assert await take_acked(deliveries, 1) == ["next"]
        letter = await take(dead)
        await letter.settle(Ack())

    assert (text_of(letter), headers_of(letter).get("kernel-death-reason")) == ("late", "expired")
    assert headers_of(letter).get("kernel-death-attempts") == 1


_ONCE = frozenset({Capability.DEDUPLICATION})
_DEAD = frozenset({Capability.DEAD_LETTERS})
_LATE = _DEAD | {Capability.TTL, Capability.DELAY}

ONCE = (
    Promise("a message that is sent twice within the window is taken once", _duplicate, _ONCE),
    Promise("after the window an id is taken again", _window_ends, _ONCE),
    Promise("each queue has a window of its own", _each_queue, _ONCE),
    Promise("a retry or a return is no duplicate", _again_is_no_duplicate, _ONCE),
    Promise("a full queue confirms duplicates and forgets what it refused", _full, _ONCE | {Capability.MAX_LENGTH}),
    Promise("a queue that exists with another window is a conflict", _conflict, _ONCE),
    Promise("a dead letter that dies again tells of both deaths", _dies_twice, _DEAD),
    Promise("the history of a dead letter is bounded", _dies_often, _DEAD),
    Promise("a message whose deadline passes while it waits for a retry is put aside", _deadline_in_a_retry, _LATE),
)
