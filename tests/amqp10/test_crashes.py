"""Attempts in which a process died, over AMQP 1.0; each driver here is such a process."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
import trio
import trio.testing
from kernel_amqp10 import Amqp10Options
from kernel_amqp10.broker.crashes import next_note, note_of

from kernel import Ack, Envelope, Retry, Return, new_id
from kernel.abc import CrashNote, Delivery, Queue, Subscription, Topology

from ..amqp._killer import deaths_of
from ._node import Amqp10Node

SOON = 15.0
FORGIVEN = 3
"""Times that a copy with a note may come again."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that has its time also on a machine that has none: one that is cut off is a crash to whoever comes next."""
    monkeypatch.setattr("kernel_amqp10.broker.broker._LEAVE_TIMEOUT", SOON)
    monkeypatch.setattr("kernel._core.settlements.LAST_WAIT", SOON)
    monkeypatch.setattr("kernel._core.settling.PATIENCE", SOON)


def test_a_message_says_by_a_property_that_it_is_a_copy_with_a_note() -> None:
    assert note_of(CrashNote(crashes=2, comings=1).headers()) == CrashNote(crashes=2, comings=1)
    assert note_of({"kernel-attempts": 2}) is None
    assert (next_note(None), next_note(CrashNote())) == (CrashNote(), CrashNote(comings=1))


# --- against the real broker ----------------------------------------------------------------------------------------


@asynccontextmanager
async def process(rabbit: Amqp10Node, queue: Queue) -> AsyncGenerator[Delivery]:
    """A process that takes the first message; if it has not settled it at the end, it dies with it."""
    async with rabbit.open() as broker:
        await broker.declare(Topology(queues=[queue]))
        async with broker.subscribe(Subscription(queue=queue.name, prefetch=1)) as deliveries:
            with trio.fail_after(SOON):
                delivery = await anext(deliveries)
            yield delivery


async def send(rabbit: Amqp10Node, queue: Queue) -> None:
    async with rabbit.open() as broker:
        await broker.declare(Topology(queues=[queue]))
        envelope = Envelope(subject=queue.name, body=b"a", id="a", headers={"h": 1})
        await broker.send(envelope, exchange="", mandatory=True)


async def attempt_of_the_next(rabbit: Amqp10Node, queue: Queue) -> int:
    """The attempt that a process sees which dies with the message."""
    async with process(rabbit, queue) as delivery:
        return delivery.attempt


async def times_there(rabbit: Amqp10Node, queue: Queue) -> int:
    """How often the message is in its queue; what comes again with a note goes behind the first end."""
    ids = list[str]()
    async with rabbit.open() as broker, broker.subscribe(Subscription(queue=queue.name, prefetch=5)) as deliveries:
        for end in ("first end", "second end"):
            await broker.send(Envelope(subject=queue.name, body=b"", id=end), exchange="")
            with trio.fail_after(SOON):
                while end not in ids:
                    delivery = await anext(deliveries)
                    ids.append(delivery.envelope.id)
                    delivery.settle_nowait(Ack())
                await trio.testing.wait_all_tasks_blocked()
                while broker._settlements._running:  # noqa: ASYNC110  nobody tells
                    await trio.sleep(0.02)
    return ids.count("a")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_a_message_with_which_process_after_process_dies_is_beyond_its_attempts(
    kind: Literal["classic", "quorum"], rabbit: Amqp10Node
) -> None:
    queue = Queue(name=f"crashes-{new_id()}", options=Amqp10Options(type=kind))
    await send(rabbit, queue)
    attempts = [await attempt_of_the_next(rabbit, queue) for _ in range(3 + FORGIVEN + 1)]
    async with process(rabbit, queue) as delivery:
        envelope = delivery.envelope
        delivery.settle_nowait(Ack())

    assert attempts == [1] * (2 + FORGIVEN) + [3, 4]
    assert (envelope.id, envelope.subject, envelope.body, dict(envelope.headers)) == ("a", queue.name, b"a", {"h": 1})


@pytest.mark.slow
@pytest.mark.parametrize("is_left", [True, False])
async def test_what_is_given_back_in_time_is_never_counted(is_left: bool, rabbit: Amqp10Node) -> None:
    """Whether or not the subscription has been left before."""
    queue, attempts = Queue(name=f"returned-{new_id()}"), list[int]()
    await send(rabbit, queue)
    for _ in range(FORGIVEN + 4):
        async with rabbit.open() as broker:
            await broker.declare(Topology(queues=[queue]))
            async with broker.subscribe(Subscription(queue=queue.name, prefetch=1)) as deliveries:
                with trio.fail_after(SOON):
                    delivery = await anext(deliveries)
                attempts.append(delivery.attempt)
                if not is_left:
                    await delivery.settle(Return())
            if is_left:
                await delivery.settle(Return())

    assert attempts == [1] * (FORGIVEN + 4)


@pytest.mark.slow
async def test_what_was_fetched_ahead_and_nobody_took_is_never_counted(rabbit: Amqp10Node) -> None:
    queue = Queue(name=f"ahead-{new_id()}")
    await send(rabbit, queue)
    await attempt_of_the_next(rabbit, queue)
    for _ in range(FORGIVEN + 2):
        async with rabbit.open() as broker:
            await broker.declare(Topology(queues=[queue]))
            async with broker.subscribe(Subscription(queue=queue.name, prefetch=5)):
                [consumer] = broker._consumers
                with trio.fail_after(SOON):
                    while not consumer._shelf:  # noqa: ASYNC110  nobody tells
                        await trio.sleep(0.02)

    assert await attempt_of_the_next(rabbit, queue) == 1
    assert await times_there(rabbit, queue) == 1


@pytest.mark.slow
async def test_a_retry_counts_on_from_what_was_noted(rabbit: Amqp10Node) -> None:
    queue = Queue(name=f"retried-{new_id()}")
    await send(rabbit, queue)
    for _ in range(2 + FORGIVEN):
        await attempt_of_the_next(rabbit, queue)
    async with process(rabbit, queue) as delivery:
        first = delivery.attempt
        await delivery.settle(Retry())
    async with process(rabbit, queue) as delivery:
        second = delivery.attempt
        delivery.settle_nowait(Ack())

    assert (first, second) == (3, 4)


@pytest.mark.slow
async def test_a_message_that_kills_its_process_does_not_do_so_for_ever(rabbit: Amqp10Node, tmp_path: Path) -> None:
    table = {"hosts": [rabbit.node.address], **rabbit.table()}
    driver = "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
    async with rabbit.open() as broker:
        deaths = await deaths_of(broker, f"killer-{new_id()}", tmp_path, driver)

    assert 3 <= deaths <= 7
