"""Cases of `check_broker`: settling without waiting, as the kernel tries first."""

from __future__ import annotations

from functools import partial
from typing import Final

import trio

from .._core.envelope import Ack, DeadLetter, Envelope, Outcome, Retry, Return
from ..abc import Capability, Delivery
from ..errors import SettledError
from ._broker_bench import DELAY, Bench, Promise, headers_of, refusal, take, take_acked, take_all, text_of

_OUTCOMES: Final[tuple[Outcome, ...]] = (Ack(), Retry(), DeadLetter("no use"), Return())


async def _settle(delivery: Delivery, outcome: Outcome) -> None:
    """Settle as the kernel does: without waiting if that can be."""
    await trio.lowlevel.checkpoint()
    if not delivery.settle_nowait(outcome):
        await delivery.settle(outcome)


async def _acks(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "first", "second")
    async with bench.consume(queue, prefetch=1) as deliveries:
        for text in ("first", "second"):
            delivery = await take(deliveries)
            assert text_of(delivery) == text, f"{text_of(delivery)!r} came instead of {text!r}"
            await _settle(delivery, Ack())

    assert await bench.drain(queue) == []


async def _replies(bench: Bench) -> None:
    queue, replies = await bench.queue(), await bench.queue("replies")
    await bench.put(queue, "question")
    async with bench.consume(queue) as deliveries, bench.consume(replies) as answers:
        await _settle(await take(deliveries), Ack(Envelope(subject=replies, body=b"answer", correlation_id="c-1")))
        answer = await take(answers)
        assert (answer.envelope.body, answer.envelope.correlation_id) == (b"answer", "c-1")
        await _settle(answer, Ack())

    assert await bench.drain(queue) == [], "the question came again although it was answered"


async def _returns(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "a", "b")
    async with bench.consume(queue, prefetch=1) as deliveries:
        await _settle(await take(deliveries), Return())
        again = await take(deliveries)
        assert text_of(again) == "a", "another message came before the one that was returned"
        assert again.attempt == 1, f"the attempt was counted: {again.attempt}"
        assert again.redelivered, "it is not marked as redelivered"
        await _settle(again, Ack())


async def _retries(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "a")
    async with bench.consume(queue, prefetch=1) as deliveries:
        for attempt in (1, 2, 3):
            delivery = await take(deliveries)
            assert delivery.attempt == attempt, f"attempt {attempt} says that it is {delivery.attempt}"
            await _settle(delivery, Retry() if attempt < 3 else Ack())

    assert await bench.drain(queue) == []


async def _retries_late(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "late", "next")
    async with bench.consume(queue, prefetch=1) as deliveries:
        start = trio.current_time()
        await _settle(await take(deliveries), Retry(DELAY))
        assert await take_acked(deliveries, 1) == ["next"], "the queue does not move on while one message waits"
        again = await take(deliveries)
        waited = trio.current_time() - start
        assert waited > DELAY * 0.9, f"came back after {waited:.2f} s instead of {DELAY:g} s"
        await _settle(again, Ack())


async def _puts_aside(bench: Bench) -> None:
    queue = await bench.queue(dead_letters="dead")
    await bench.put(queue, "bad", "good")
    async with bench.consume(queue, prefetch=1) as deliveries, bench.consume(bench.name("dead")) as dead:
        await _settle(await take(deliveries), DeadLetter("not good"))
        letter = await take(dead)
        given = headers_of(letter).get("kernel-death-reason")
        assert (text_of(letter), given) == ("bad", "not good"), f"{text_of(letter)!r} was put aside: {given!r}"
        await _settle(letter, Ack())
        assert await take_acked(deliveries, 1) == ["good"]

    assert await bench.drain(queue) == []


async def _settles_once(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, *map(str, range(len(_OUTCOMES) + 1)))
    async with bench.consume(queue) as deliveries:
        taken = await take_all(deliveries, len(_OUTCOMES) + 1)
        await taken[0].settle(Ack())
        await _expect_settled(taken[0], "settle(Ack())")
        for delivery, outcome in zip(taken[1:], _OUTCOMES, strict=True):
            await _settle(delivery, outcome)
            await _expect_settled(delivery, f"settle_nowait({outcome})")


async def _expect_settled(delivery: Delivery, before: str) -> None:
    """Raise AssertionError if a delivery that was settled can be settled again."""
    await trio.lowlevel.checkpoint()
    for outcome in _OUTCOMES:
        taken: list[bool] = []
        refused = await refusal(SettledError, partial(_note, taken, delivery, outcome))
        assert refused is not None or taken == [False], f"settle_nowait({outcome}) was done after {before}"
        refused = await refusal(SettledError, partial(delivery.settle, outcome))
        assert refused is not None, f"settle({outcome}) was done after {before}"


async def _note(taken: list[bool], delivery: Delivery, outcome: Outcome) -> None:
    await trio.lowlevel.checkpoint()
    taken.append(delivery.settle_nowait(outcome))


async def _settles_after_leaving(bench: Bench) -> None:
    queue = await bench.queue()
    await bench.put(queue, "a", "b")
    async with bench.consume(queue) as deliveries:
        first, second = await take_all(deliveries, 2)
    await _settle(first, Ack())
    await _settle(second, Return())

    assert await bench.drain(queue) == ["b"]


NOWAIT: Final = (
    Promise("Ack that does not wait removes the message", _acks),
    Promise("Ack that does not wait sends the reply", _replies, frozenset({Capability.REQUEST_REPLY})),
    Promise("Return that does not wait gives the message back at once, its attempt not counted", _returns),
    Promise("Retry that does not wait delivers again, attempt + 1", _retries),
    Promise("Retry that does not wait has its delay", _retries_late, frozenset({Capability.DELAY})),
    Promise("DeadLetter that does not wait puts the message aside", _puts_aside, frozenset({Capability.DEAD_LETTERS})),
    Promise("a delivery is settled once by whichever method", _settles_once),
    Promise("what was taken can be settled without waiting after leaving", _settles_after_leaving),
)
