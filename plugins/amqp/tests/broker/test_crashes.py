"""Attempts in which a process died, at queues of both types; each driver here is such a process."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from kernel_amqp import AmqpBroker, AmqpOptions
from kernel_amqp.broker.consumer import Consumer
from kernel_amqp.broker.crashes import FORGIVEN, FORGIVEN_NOTED, key_of, next_count
from kernel_amqp.core import Delivered, Properties
from kernel_amqp.link.receipts import Receipt
from trio.testing import MockClock

from kernel import Ack, Envelope, Pace, Retry, Return, new_id
from kernel.abc import Delivery, Queue, Spared, Subscription, Topology

from ..bench import delete, depth, open_amqp, take

CLASSIC = AmqpOptions(type="classic")
QUORUM = AmqpOptions(type="quorum", delivery_limit=40)


@pytest.fixture
def queue() -> Iterator[str]:
    """A queue that outlives the processes, and not the test."""
    name = new_id()
    yield name

    async def clean() -> None:
        await delete(queues=[name])

    trio.run(clean)


on_rabbitmq = pytest.mark.usefixtures("rabbitmq")


def delivered(**headers: object) -> Delivered:
    return Delivered(1, "c", 1, True, "", "q", Properties(headers=headers, message_id="m"), b"")


@pytest.mark.parametrize(("headers", "count"), [({}, 0), ({"kernel-crashes": 0}, 2), ({"kernel-crashes": 2}, 3)])
def test_what_came_again_twice_has_been_in_two_that_died(headers: dict[str, object], count: int) -> None:
    assert next_count(delivered(**headers)) == count


def test_a_message_is_known_again_by_its_id_or_by_its_bytes() -> None:
    named, other = delivered(), delivered(more=1)
    unnamed = [Delivered(tag, "c", 1, True, "", "q", Properties(), body) for tag, body in enumerate((b"a", b"a", b"b"))]

    assert key_of(named) == key_of(other)
    assert [key_of(one) == key_of(unnamed[0]) for one in unnamed] == [True, True, False]


@attrs.define
class SlowBroker:
    """What a consumer sends with and settles on: confirms a note late, and takes it after some time or never."""

    taken_after: float
    confirmed_after: float
    copies: int = 0
    acked: list[int] = attrs.field(factory=list[int])
    channel: Any = attrs.field(default=attrs.Factory(lambda self: self, takes_self=True))
    closed: None = None

    async def note(self, _: object, *, queue: str, crashes: int, on_written: Callable[[Receipt], None]) -> None:
        await trio.sleep(self.taken_after)
        on_written(Receipt())
        self.copies += 1
        await trio.sleep(self.confirmed_after)

    def ack(self, tag: int) -> None:
        self.acked.append(tag)


@pytest.mark.parametrize(
    ("taken_after", "confirmed_after", "copies", "handed_out"),
    [(0.0, 0.1, 1, 0), (0.0, 20.0, 1, 0), (3.0, 3.0, 1, 0), (math.inf, 0.0, 0, 1)],
)
async def test_a_suspect_is_handed_out_or_comes_again_with_its_note_and_never_both(
    taken_after: float, confirmed_after: float, copies: int, handed_out: int, autojump_clock: MockClock
) -> None:
    slow: Any = SlowBroker(taken_after, confirmed_after)
    async with trio.open_nursery() as nursery:
        wish = Subscription(queue="q", prefetch=1)
        consumer = Consumer(wish, Queue(name="q"), slow, Pace(), nursery.start_soon, Spared(), "shop")
        consumer.start(slow)
        consumer.take_in(delivered())
        with trio.move_on_after(60):
            await anext(consumer)
            handed_out -= 1

    assert (slow.copies, slow.acked, handed_out) == (copies, [1] * copies, 0)


async def test_a_driver_that_ends_waits_for_a_note_whose_task_has_not_begun(autojump_clock: MockClock) -> None:
    """Else the copy would be written, and the original go back as well."""
    slow: Any = SlowBroker(0.0, 0.1)
    async with trio.open_nursery() as nursery:
        wish = Subscription(queue="q", prefetch=1)
        consumer = Consumer(wish, Queue(name="q"), slow, Pace(), nursery.start_soon, Spared(), "shop")
        consumer.start(slow)
        consumer.take_in(delivered())
        await consumer._settlements.aclose()
        nursery.cancel_scope.cancel()

    assert (slow.copies, slow.acked) == (1, [1])


# --- against the real broker ----------------------------------------------------------------------------------------


@asynccontextmanager
async def process(queue: str, *, options: AmqpOptions = CLASSIC) -> AsyncGenerator[tuple[AmqpBroker, list[Delivery]]]:
    """A process that takes the first message; what it has not settled at the end, it dies with."""
    async with open_amqp() as broker:
        await broker.declare(Topology(queues=[Queue(name=queue, options=options)]))
        broker._catalog.forget(queue)  # it outlives the process
        taken: list[Delivery] = []
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            taken.append(await take(deliveries))
            yield broker, taken


async def send(queue: str, *ids: str, options: AmqpOptions = CLASSIC) -> None:
    async with open_amqp() as broker:
        await broker.declare(Topology(queues=[Queue(name=queue, options=options)]))
        broker._catalog.forget(queue)
        for id_ in ids:
            await broker.send(Envelope(subject=queue, body=b"a", id=id_, headers={"h": 1}), exchange="", mandatory=True)


async def attempt_of_the_next(queue: str, options: AmqpOptions = CLASSIC) -> int:
    """The attempt that a process sees which dies with the message."""
    async with process(queue, options=options) as (_, taken):
        return taken[0].attempt


@pytest.mark.slow
@on_rabbitmq
async def test_a_message_with_which_three_processes_died_is_beyond_three_attempts(queue: str) -> None:
    await send(queue, "a")
    attempts = [await attempt_of_the_next(queue) for _ in range(4)]
    async with process(queue) as (_, taken):
        envelope = taken[0].envelope
        await taken[0].settle(Ack())

    assert attempts == [1, 1, 3, 4]
    assert (envelope.id, envelope.subject, envelope.body, dict(envelope.headers)) == ("a", queue, b"a", {"h": 1})
    assert await depth(queue) == 0


@pytest.mark.slow
@on_rabbitmq
async def test_a_copy_with_a_note_is_told_to_be_delivered_again(queue: str) -> None:
    await send(queue, "a")
    again: list[bool] = []
    for _ in range(3):
        async with process(queue) as (_, taken):
            again.append(taken[0].redelivered)

    assert again == [False, True, True]


@pytest.mark.slow
@on_rabbitmq
async def test_what_is_given_back_in_time_is_never_counted(queue: str) -> None:
    attempts: list[int] = []
    await send(queue, "a")
    for _ in range(6):
        async with process(queue) as (_, taken):
            attempts.append(taken[0].attempt)
            await taken[0].settle(Return())

    assert attempts == [1] * 6
    assert await depth(queue) == 1


@pytest.mark.slow
@on_rabbitmq
async def test_what_the_same_process_gave_back_comes_first_again(queue: str) -> None:
    await send(queue, "a", "b")
    async with open_amqp() as broker, broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
        for _ in range(3):
            delivery = await take(deliveries)
            assert (delivery.envelope.id, delivery.attempt) == ("a", 1)
            await delivery.settle(Return())


@pytest.mark.slow
@on_rabbitmq
async def test_a_retry_counts_on_from_what_was_noted(queue: str) -> None:
    await send(queue, "a")
    for _ in range(2):
        await attempt_of_the_next(queue)
    async with process(queue) as (_, taken):
        await taken[0].settle(Retry())
    async with process(queue) as (_, again):
        attempts = (taken[0].attempt, again[0].attempt)
        await again[0].settle(Ack())

    assert attempts == (3, 4)


@pytest.mark.slow
@on_rabbitmq
async def test_at_a_quorum_queue_a_message_is_tried_no_more_than_sixteen_times_by_processes_that_die(
    queue: str,
) -> None:
    await send(queue, "a", options=QUORUM)
    attempts = [await attempt_of_the_next(queue, QUORUM) for _ in range(17)]

    assert attempts == [1] * (FORGIVEN + FORGIVEN_NOTED) + [3] * FORGIVEN_NOTED + [4]


@pytest.mark.slow
@on_rabbitmq
async def test_what_was_only_fetched_from_a_quorum_queue_is_a_first_try_however_often(queue: str) -> None:
    await send(queue, "a", options=QUORUM)
    attempts: list[int] = []
    for _ in range(FORGIVEN + 5):
        async with process(queue, options=QUORUM) as (_, taken):
            attempts.append(taken[0].attempt)
            await taken[0].settle(Return())

    assert attempts == [1] * (FORGIVEN + 5)
