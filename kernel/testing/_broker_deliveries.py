"""Cases of `check_broker`: messages and deliveries."""

from __future__ import annotations

import math
import random
from functools import partial
from typing import Any

import trio

from .._core.envelope import Ack, DeadLetter, Envelope, Retry, Return
from ..abc import Capability, Delivery
from ..errors import EncodeError, SettledError
from ._broker_bench import (
    DELAY,
    PATIENCE,
    QUIET,
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

_PATTERNS = {
    "order.created": {"order.created"},
    "order.*": {"order.created", "order.paid"},
    "order.#": {"order", "order.created", "order.paid", "order.paid.late"},
    "*.paid.*": {"order.paid.late"},
    "#.late": {"order.paid.late"},
}


async def _arrives_as_sent(bench: Bench) -> None:
    queue = await bench.queue()
    headers = {"text": "snow \u2603", "count": 3, "ratio": 0.5, "flag": True, "none": None, "list": [1, "a"]}
    sent = Envelope(
        subject=queue,
        body=bytes(range(256)) * 256,
        headers=headers,
        content_type="application/x-test",
        reply_to="somewhere",
        correlation_id="c-1",
        deadline=trio.current_time() + 3600,
    )
    await bench.broker.send(sent, exchange="")
    async with bench.consume(queue) as deliveries:
        got = (await take(deliveries)).envelope

    for field in ("subject", "body", "id", "content_type", "reply_to", "correlation_id"):
        assert getattr(got, field) == getattr(sent, field), f"{field} is {getattr(got, field)!r:.80}"
    changed = {key: value for key, value in headers.items() if dict(got.headers).get(key, ...) != value}
    assert not changed, f"headers were sent as {changed} and came as {dict(got.headers)}"
    assert abs(got.deadline - sent.deadline) < PATIENCE, f"the deadline moved by {got.deadline - sent.deadline} s"


async def _refuses_strange(bench: Bench) -> None:
    queue = await bench.queue()
    deep: list[object] = []
    for _ in range(40):
        deep = [deep]
    values = [b"x", {1}, object(), math.nan, math.inf, 2**63, {1: "a"}, [b"x"], {"a": {"b": b"x"}}, deep, "\ud800"]
    strange: list[tuple[Any, Any]] = [("x", {"h": value}) for value in values]
    cases: list[tuple[Any, Any]] = [*strange, ("x", {1: "a"}), (3, {}), (None, {}), ("", {})]
    for id_, headers in cases:
        try:
            await bench.broker.send(Envelope(subject=queue, id=id_, headers=headers), exchange="")
        except EncodeError:
            continue
        raise AssertionError(f"it took id {id_!r:.60} and headers {headers!r:.60}")
    await bench.put(queue, "good")

    assert await bench.drain(queue) == ["good"], "a message was there that was refused"


async def _empty_body(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "")

    assert await bench.drain(queue) == [""]


async def _wildcards(bench: Bench) -> None:
    await trio.lowlevel.checkpoint()
    subjects = sorted({subject for wanted in _PATTERNS.values() for subject in wanted})
    for number, pattern in enumerate(_PATTERNS):
        await bench.bind(await bench.queue(f"queue{number}"), pattern)
    for subject in subjects:
        await bench.broker.send(Envelope(subject=subject, body=subject.encode()), exchange=bench.name("exchange"))

    for number, (pattern, wanted) in enumerate(_PATTERNS.items()):
        got = await bench.drain(bench.name(f"queue{number}"))
        assert sorted(got) == sorted(wanted), f"`{pattern}` got {got} of {subjects}"


async def _one_copy_each(bench: Bench) -> None:
    first, second = await bench.queue("first"), await bench.queue("second")
    await bench.bind(first, "a.*", "a.b", "#")
    exchange = await bench.bind(second, "a.b")
    await bench.broker.send(Envelope(subject="a.b", body=b"copy"), exchange=exchange)

    assert await bench.drain(first) == ["copy"], "a queue with several bindings that match"
    assert await bench.drain(second) == ["copy"], "the other queue"


async def _in_order(bench: Bench) -> None:
    queue = await bench.queue()
    texts = [f"{number:02}" for number in range(20)]
    await bench.put(queue, *texts)
    async with bench.consume(queue) as deliveries:
        assert await take_acked(deliveries, 20) == texts


async def _consumers_share(bench: Bench) -> None:
    queue = await bench.queue()
    async with bench.consume(queue, prefetch=1) as one, bench.consume(queue, prefetch=1) as two:
        await bench.put(queue, "a", "b")
        first, second = await take(one), await take(two)
        assert {text_of(first), text_of(second)} == {"a", "b"}, "two consumers got the same message"
        await first.settle(Ack())
        await second.settle(Ack())
    assert await bench.drain(queue) == []


async def _prefetch_bounds(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, *"abcde")
    late: list[str] = []
    async with bench.consume(queue, prefetch=3) as deliveries, trio.open_nursery() as nursery:
        held = await take_all(deliveries, 3)

        async def fourth() -> None:
            delivery = await take(deliveries)
            late.append(text_of(delivery))
            await delivery.settle(Ack())

        nursery.start_soon(fourth)
        await trio.sleep(QUIET)
        assert not late, "a fourth delivery came although three were not settled"
        await held[0].settle(Ack())
    assert late == ["d"], f"{late} came when one was settled"


async def _leaves_the_rest(bench: Bench) -> None:
    """Also where a source counts by itself what it may send, while some of it is on its way and some is settled."""
    queue, taken, prefetch, handled, others = await bench.queue(), list[str](), 4, 200, 100
    await bench.put(queue, *map(str, range(handled + others)))
    chance = random.Random(0)

    async def handle(delivery: Delivery) -> None:
        taken.append(text_of(delivery))
        await trio.sleep(chance.uniform(0, 0.02))
        await delivery.settle(Ack())

    async with bench.consume(queue, prefetch=prefetch) as deliveries:
        async with trio.open_nursery() as nursery:
            for _ in range(handled):
                nursery.start_soon(handle, await take(deliveries))
        rest = await bench.drain(queue)
    left = await bench.drain(queue)

    assert len(rest) >= others - 4 * prefetch, f"{len(left)} of {others} were out of reach of the other consumer"
    assert sorted(map(int, taken + rest + left)) == list(range(handled + others)), "one was lost, or came twice"


async def _ack_removes(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "first", "second")
    async with bench.consume(queue) as deliveries:
        first = await take(deliveries)
        assert (first.attempt, first.redelivered) == (1, False)
        assert await take_acked(deliveries, 1) == ["second"]
        await first.settle(Ack())

    assert await bench.drain(queue) == []


async def _return_comes_first(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "a", "b")
    async with bench.consume(queue, prefetch=1) as deliveries:
        await (await take(deliveries)).settle(Return())
        again = await take(deliveries)
        assert text_of(again) == "a", "another message came before the one that was returned"
        assert again.attempt == 1, f"the attempt was counted: {again.attempt}"
        assert again.redelivered, "it is not marked as redelivered"
        await again.settle(Ack())


async def _retry_counts(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "a")
    async with bench.consume(queue, prefetch=1) as deliveries:
        for attempt in (1, 2, 3):
            delivery = await take(deliveries)
            assert delivery.attempt == attempt, f"attempt {attempt} says that it is {delivery.attempt}"
            assert delivery.redelivered == (attempt > 1)
            await delivery.settle(Retry() if attempt < 3 else Ack())

    assert await bench.drain(queue) == []


async def _retry_waits(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "late", "next")
    async with bench.consume(queue, prefetch=1) as deliveries:
        start = trio.current_time()
        await (await take(deliveries)).settle(Retry(DELAY))
        assert await take_acked(deliveries, 1) == ["next"], "the queue does not move on while one message waits"
        again = await take(deliveries)
        waited = trio.current_time() - start
        assert (text_of(again), again.attempt) == ("late", 2)
        assert waited > DELAY * 0.9, f"came back after {waited:.2f} s instead of {DELAY:g} s"
        await again.settle(Ack())


async def _dead_letter_carries(bench: Bench) -> None:
    queue = await bench.queue(dead_letters="dead")
    exchange = await bench.bind(queue, "order.*")
    sent = Envelope(subject="order.bad", body=b"\x00\xff", headers={"kept": "yes"})
    await bench.broker.send(sent, exchange=exchange)
    async with bench.consume(queue) as deliveries:
        await (await take(deliveries)).settle(Retry())
        await (await take(deliveries)).settle(DeadLetter("not good"))
        async with bench.consume(bench.name("dead")) as dead:
            letter = await take(dead)
            await letter.settle(Ack())
        await expect_quiet(deliveries)

    wanted = {
        "kept": "yes",
        "kernel-death-reason": "not good",
        "kernel-death-queue": queue,
        "kernel-death-attempts": 2,
        "kernel-death-subject": "order.bad",
    }
    missing = {key: value for key, value in wanted.items() if headers_of(letter).get(key) != value}
    assert letter.envelope.body == sent.body, f"the bytes came as {letter.envelope.body!r:.80}"
    assert not missing, f"headers should have {missing} and are {headers_of(letter)}"


async def _dead_letter_without_queue(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "a")
    async with bench.consume(queue) as deliveries:
        await (await take(deliveries)).settle(DeadLetter("no use"))

    assert await bench.drain(queue) == []


async def _settles_once(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "a")
    async with bench.consume(queue) as deliveries:
        delivery = await take(deliveries)
        await delivery.settle(Ack())
        for outcome in (Ack(), Retry(), Return()):
            refused = await refusal(SettledError, partial(delivery.settle, outcome))
            assert refused is not None, f"{outcome} was taken after an Ack"

    assert await bench.drain(queue) == []


async def _reply_is_sent(bench: Bench) -> None:
    queue, replies = await bench.queue(), await bench.queue("replies")
    await bench.put(queue, "question")
    async with bench.consume(queue) as deliveries, bench.consume(replies) as answers:
        question = await take(deliveries)
        await question.settle(Ack(Envelope(subject=replies, body=b"answer", correlation_id="c-1")))
        answer = await take(answers)
        assert (answer.envelope.body, answer.envelope.correlation_id) == (b"answer", "c-1")
        await answer.settle(Ack())


async def _reply_to_nobody(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "question")
    async with bench.consume(queue) as deliveries:
        await (await take(deliveries)).settle(Ack(Envelope(subject=bench.name("gone"), body=b"answer")))

    assert await bench.drain(queue) == [], "the question came again although it was answered"


async def _reply_through_exchange(bench: Bench) -> None:
    queue, replies, unbound = await bench.queue(), await bench.queue("replies"), await bench.queue("unbound")
    exchange = await bench.bind(replies, replies)
    await bench.put(queue, "question", "another")
    async with bench.consume(queue, reply_exchange=exchange) as deliveries, bench.consume(replies) as answers:
        for subject in (unbound, replies):
            await (await take(deliveries)).settle(Ack(Envelope(subject=subject, body=b"answer", correlation_id="c-1")))
        answer = await take(answers)
        assert (answer.envelope.body, answer.envelope.correlation_id) == (b"answer", "c-1")
        await answer.settle(Ack())

    assert await bench.drain(unbound) == [], "a reply went straight to a queue that is not bound to the exchange"
    assert await bench.drain(queue) == [], "a question came again although it was answered"


async def _leaving_returns(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, *"abcde")
    async with bench.consume(queue) as deliveries:
        held = await take(deliveries)
        await trio.sleep(QUIET)
    async with bench.consume(queue) as deliveries:
        rest = await take_all(deliveries, 4)
        assert sorted(map(text_of, rest)) == ["b", "c", "d", "e"]
        assert {delivery.attempt for delivery in rest} == {1}, "what was not taken was counted as an attempt"
        for delivery in rest:
            await delivery.settle(Ack())
        await held.settle(Ack())
        await expect_quiet(deliveries)


async def _settles_after_leaving(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "a", "b")
    async with bench.consume(queue) as deliveries:
        first, second = await take_all(deliveries, 2)
    await first.settle(Ack())
    await second.settle(Return())

    assert await bench.drain(queue) == ["b"]


async def _stops_at_once(bench: Bench) -> None:
    queue = await bench.queue()
    async with bench.consume(queue) as deliveries:
        with trio.move_on_after(QUIET):
            await anext(deliveries)
    await bench.put(queue, "a")
    await trio.sleep(QUIET)

    assert await bench.drain(queue) == ["a"], "a message went to a consumer that had left"


DELIVERIES = (
    Promise("an envelope arrives as it was sent", _arrives_as_sent),
    Promise("a message may be empty", _empty_body),
    Promise("`*` stands for one word and `#` for any number", _wildcards),
    Promise("every queue that is bound gets one copy", _one_copy_each),
    Promise("first come, first served", _in_order),
    Promise("consumers of one queue share its messages", _consumers_share),
    Promise("not more than `prefetch` deliveries are unsettled", _prefetch_bounds),
    Promise("what one consumer cannot take yet goes to others", _leaves_the_rest),
    Promise("Ack removes the message", _ack_removes),
    Promise("Return gives the message back at once, its attempt not counted", _return_comes_first),
    Promise("Retry delivers again, attempt + 1", _retry_counts),
    Promise("Retry waits, and the queue goes on meanwhile", _retry_waits, frozenset({Capability.DELAY})),
    Promise(
        "a dead letter carries bytes, headers and the reason",
        _dead_letter_carries,
        frozenset({Capability.DEAD_LETTERS}),
    ),
    Promise("DeadLetter without a queue for it removes the message", _dead_letter_without_queue),
    Promise("a delivery is settled once", _settles_once),
    Promise("a reply is sent before settle returns", _reply_is_sent, frozenset({Capability.REQUEST_REPLY})),
    Promise("a reply that nobody can get hinders nobody", _reply_to_nobody, frozenset({Capability.REQUEST_REPLY})),
    Promise(
        "a reply goes through the exchange that the subscription names",
        _reply_through_exchange,
        frozenset({Capability.REQUEST_REPLY}),
    ),
    Promise("leaving a subscription returns what was not taken", _leaving_returns),
    Promise("what was taken can be settled after leaving", _settles_after_leaving),
    Promise("leaving a subscription stops the source at once", _stops_at_once),
    Promise("an id that is no text, and a header that JSON cannot say, are refused", _refuses_strange),
)
