"""Cases of `check_broker`: what queues and exchanges are declared to do."""

from __future__ import annotations

from functools import partial

import trio

from .._core.envelope import Ack, Envelope, Return
from ..abc import Capability, Exchange, Queue, Topology
from ..errors import ConflictError, QueueFullError, UnroutableError
from ._broker_bench import (
    DELAY,
    Bench,
    Promise,
    expect_quiet,
    headers_of,
    refusal,
    take,
    take_acked,
    take_all,
    text_of,
)


async def _declare_twice(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "a")
    for _ in range(2):
        await bench.queue()
        await bench.bind(queue, "x.*")
    await bench.broker.send(Envelope(subject="x.y", body=b"b"), exchange=bench.name("exchange"))

    assert sorted(await bench.drain(queue)) == [
        "a",
        "b",
    ]  # they came by two ways, between which some brokers keep no order


async def _conflict_of_queue(bench: Bench) -> None:
    await bench.queue()
    other = Topology(queues=[Queue(name=bench.name("queue"), durable=not bench.durable)])
    await _expect_conflict(bench, other, bench.name("queue"), "true", "false")


async def _conflict_of_length(bench: Bench) -> None:
    await bench.queue(max_length=1234)
    other = Queue(name=bench.name("queue"), durable=bench.durable, max_length=4321)
    await _expect_conflict(bench, Topology(queues=[other]), other.name, "1234", "4321")


async def _conflict_of_exchange(bench: Bench) -> None:
    exchange = await bench.bind(await bench.queue(), "x")
    other = Topology(exchanges=[Exchange(name=exchange, durable=not bench.durable)])
    await _expect_conflict(bench, other, exchange, "true", "false")


async def _expect_conflict(bench: Bench, topology: Topology, *texts: str) -> None:
    refused = await refusal(ConflictError, partial(bench.broker.declare, topology))
    assert refused is not None, f"{topology} was declared over something else"
    missing = [text for text in texts if text.lower() not in str(refused).lower()]
    assert not missing, f"the error does not name {missing}: {refused}"


async def _no_such_queue(bench: Bench) -> None:
    refused = await refusal(ConflictError, partial(_visit, bench, bench.name("missing")))
    assert refused is not None, "a queue that nobody declared was consumed from"


async def _visit(bench: Bench, queue: str) -> None:
    async with bench.consume(queue):
        pass


async def _exclusive(bench: Bench) -> None:
    queue = await bench.queue(exclusive=True)
    async with bench.consume(queue) as deliveries:
        refused = await refusal(ConflictError, partial(_visit, bench, queue))
        assert refused is not None, "a second consumer was let in"
        await bench.put(queue, "a")
        assert await take_acked(deliveries, 1) == ["a"], "the first consumer lost its queue"


async def _exclusive_goes_away(bench: Bench) -> None:
    queue = await bench.queue(exclusive=True)
    await _visit(bench, queue)
    await _expect_unroutable(bench, Envelope(subject=queue), exchange="")


async def _unroutable(bench: Bench) -> None:
    exchange = await bench.bind(await bench.queue(), "known")
    await _expect_unroutable(bench, Envelope(subject="unknown"), exchange=exchange)
    await _expect_unroutable(bench, Envelope(subject=bench.name("missing")), exchange="")
    await bench.broker.send(Envelope(subject="unknown"), exchange=exchange)
    await bench.broker.send(Envelope(subject="known", body=b"a"), exchange=exchange, mandatory=True)

    assert await bench.drain(bench.name("queue")) == ["a"], "the broker goes on after an error"


async def _expect_unroutable(bench: Bench, envelope: Envelope, *, exchange: str) -> None:
    send = partial(bench.broker.send, envelope, exchange=exchange, mandatory=True)
    refused = await refusal(UnroutableError, send)
    assert refused is not None, f'"{envelope.subject}" was taken for exchange "{exchange}", but no queue is bound'


async def _refuses(bench: Bench) -> None:
    full = await bench.queue(max_length=3)
    exchange = await bench.bind(full, "x")
    await bench.put(full, *"abc")
    for target in ("", exchange):
        send = partial(bench.broker.send, Envelope(subject="x" if target else full, body=b"d"), exchange=target)
        assert await refusal(QueueFullError, send) is not None, "a fourth message was taken into a queue for three"

    assert await bench.drain(full) == ["a", "b", "c"]
    await bench.put(full, "d")
    assert await bench.drain(full) == ["d"], "nothing is taken any more, although there is room"


async def _refuses_for_all(bench: Bench) -> None:
    full, roomy = await bench.queue("full", max_length=1), await bench.queue("roomy")
    await bench.bind(full, "x")
    exchange = await bench.bind(roomy, "x")
    await bench.put(full, "a")
    send = partial(bench.broker.send, Envelope(subject="x", body=b"b"), exchange=exchange)
    assert await refusal(QueueFullError, send) is not None, "a second message was taken into a queue for one"

    assert await bench.drain(roomy) == [], "the other queue got a copy of what was refused"


async def _drops_oldest(bench: Bench) -> None:
    queue = await bench.queue(max_length=3, overflow="drop_oldest")
    await bench.put(queue, *"abcde")

    assert await bench.drain(queue) == ["c", "d", "e"]


async def _dropped_are_dead(bench: Bench) -> None:
    queue = await bench.queue(max_length=1, overflow="drop_oldest", dead_letters="dead")
    await bench.put(queue, "a", "b")
    await _expect_dead(bench, "a", reason="overflow")


async def _ttl(bench: Bench) -> None:
    queue = await bench.queue(ttl=DELAY / 4)
    await bench.put(queue, "a", "b")
    await trio.sleep(DELAY)

    assert await bench.drain(queue) == []


async def _expired_are_dead(bench: Bench) -> None:
    queue = await bench.queue(ttl=DELAY / 4, dead_letters="dead")
    await bench.put(queue, "a")
    await _expect_dead(bench, "a", reason="expired")


async def _deadline(bench: Bench) -> None:
    queue = await bench.queue(dead_letters="dead")
    await bench.put(queue, "held")
    async with bench.consume(queue, prefetch=1) as deliveries:
        held = await take(deliveries)
        late = Envelope(subject=queue, body=b"late", deadline=trio.current_time() + DELAY / 4)
        await bench.broker.send(late, exchange="")
        await bench.put(queue, "next")
        await trio.sleep(DELAY)
        await held.settle(Ack())
        assert await take_acked(deliveries, 1) == ["next"], "a message was delivered after its deadline"
    await _expect_dead(bench, "late", reason="expired")


async def _expect_dead(bench: Bench, text: str, *, reason: str) -> None:
    async with bench.consume(bench.name("dead")) as dead:
        letter = await take(dead)
        await letter.settle(Ack())
        await expect_quiet(dead)
    given = headers_of(letter).get("kernel-death-reason")
    assert text_of(letter) == text, f"{text_of(letter)!r} was put aside instead of {text!r}"
    assert given == reason, f"the reason given is {given!r}, not {reason!r}"


async def _delay(bench: Bench) -> None:
    queue = await bench.queue()
    start = trio.current_time()
    await bench.put(queue, "late", delay=DELAY)
    await bench.put(queue, "soon")
    async with bench.consume(queue) as deliveries:
        assert await take_acked(deliveries, 2) == ["soon", "late"]
    waited = trio.current_time() - start

    assert waited > DELAY * 0.9, f"came after {waited:.2f} s instead of {DELAY:g} s"


async def _priority(bench: Bench) -> None:
    queue = await bench.queue(options=bench.prioritised)
    for text, priority in (("low", 0), ("high", 9), ("middle", 5), ("low too", 0)):
        await bench.put(queue, text, priority=priority)
    async with bench.consume(queue, prefetch=1) as deliveries:
        got = await take_acked(deliveries, 4)

    assert got == ["high", "middle", "low", "low too"], f"came as {got}"


async def _peek(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, *"abc")
    for _ in range(2):
        seen = await bench.broker.peek(queue, limit=2)
        assert [text_of(delivery) for delivery in seen] == ["a", "b"]
        assert {delivery.attempt for delivery in seen} == {1}
    async with bench.consume(queue) as deliveries:
        taken = await take_all(deliveries, 3)
        assert [text_of(delivery) for delivery in taken] == ["a", "b", "c"], "looking took something"
        assert {delivery.attempt for delivery in taken} == {1}, "looking was counted as an attempt"
        for delivery in taken:
            await delivery.settle(Return())

    assert len(await bench.broker.peek(queue)) == 3
    assert await bench.drain(queue) == ["a", "b", "c"]


async def _peek_nowhere(bench: Bench) -> None:
    refused = await refusal(ConflictError, partial(bench.broker.peek, bench.name("missing")))
    assert refused is not None, "there is no such queue, and it was looked into"


_BOUND = frozenset({Capability.MAX_LENGTH})
_DEAD = frozenset({Capability.DEAD_LETTERS})
_TTL = frozenset({Capability.TTL})
_PEEK = frozenset({Capability.PEEK})
_REPLY = frozenset({Capability.REQUEST_REPLY})
_MANDATORY = frozenset({Capability.MANDATORY})

QUEUES = (
    Promise("declare is idempotent", _declare_twice),
    Promise("a queue that exists with other properties is a conflict", _conflict_of_queue),
    Promise("a queue that exists with another length is a conflict", _conflict_of_length, _BOUND),
    Promise("an exchange that exists with other properties is a conflict", _conflict_of_exchange),
    Promise("a queue must exist to be consumed from", _no_such_queue),
    Promise("an exclusive queue has one consumer", _exclusive, _REPLY),
    Promise("an exclusive queue goes away with its consumer", _exclusive_goes_away, _REPLY | _MANDATORY),
    Promise("a mandatory message that no queue gets is an error", _unroutable, _MANDATORY),
    Promise("a full queue refuses", _refuses, _BOUND),
    Promise("what one full queue refuses no other queue gets", _refuses_for_all, _BOUND | {Capability.ALL_OR_NOTHING}),
    Promise("a full queue drops its oldest", _drops_oldest, _BOUND),
    Promise("what is dropped becomes a dead letter", _dropped_are_dead, _BOUND | _DEAD),
    Promise("a message older than `ttl` is not delivered", _ttl, _TTL),
    Promise("a message older than `ttl` becomes a dead letter", _expired_are_dead, _TTL | _DEAD),
    Promise("a message past its deadline is not delivered but put aside", _deadline, _TTL | _DEAD),
    Promise("a delayed message waits", _delay, frozenset({Capability.DELAY})),
    Promise("the highest priority comes first", _priority, frozenset({Capability.PRIORITY})),
    Promise("peek takes nothing", _peek, _PEEK),
    Promise("a queue must exist to be looked into", _peek_nowhere, _PEEK),
)
