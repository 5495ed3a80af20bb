"""Attempts in which a process died, on both servers; each driver here is such a process."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from kernel_stomp import StompDriver, StompOptions
from kernel_stomp.broker.broker import StompBroker
from kernel_stomp.broker.crashes import FORGIVEN, FORGIVEN_NOTED, is_noted, is_suspect, next_note

from kernel import Ack, Envelope, Retry, Return, new_id
from kernel.abc import CrashNote, Delivery, Queue, Subscription, Topology
from kernel.testing import fake_context

from ..amqp._killer import deaths_of
from .conftest import Server
from .test_conformance import config_of

SOON = 15.0


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that has its time also on a machine that has none: one that is cut off is a crash to whoever comes next."""
    monkeypatch.setattr("kernel_stomp.broker.broker._LEAVE_TIMEOUT", SOON)
    monkeypatch.setattr("kernel._core.settlements.LAST_WAIT", SOON)
    monkeypatch.setattr("kernel._core.settling.PATIENCE", SOON)


AGAIN = {"redelivered": "true"}


def copies(headers: dict[str, str], times: int) -> list[CrashNote]:
    """What is noted of a message that comes again so many times, which nobody has given back."""
    notes: list[CrashNote] = []
    for _ in range(times):
        notes.append(next_note({**AGAIN, **headers}))
        headers = {key: value for key, value in headers.items() if key == "x-delivery-count"} | {
            key: str(number) for key, number in notes[-1].headers().items()
        }
    return notes


def test_what_comes_again_and_again_has_been_in_those_that_died() -> None:
    assert [note.crashes for note in copies({}, 7)] == [0, 0, 0, 0, 2, 3, 4]
    assert [note.crashes for note in copies({"x-delivery-count": "10"}, 4)] == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("headers", "suspect"),
    [
        ({}, False),
        (AGAIN, True),
        ({**AGAIN, "x-delivery-count": "9"}, False),
        ({**AGAIN, "x-delivery-count": "10"}, True),
        ({**AGAIN, "x-delivery-count": "2", "kernel-crashes": "0"}, False),
        ({**AGAIN, "x-delivery-count": "3", "kernel-crashes": "0"}, True),
    ],
)
def test_what_a_quorum_queue_counts_says_when_to_look(headers: dict[str, str], suspect: bool) -> None:
    assert is_suspect(headers) == suspect


# --- against the real servers ---------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(server: Server) -> AsyncGenerator[StompBroker]:
    async with StompDriver(config=config_of(server), context=fake_context("driver/q")).open() as broker:
        yield broker


@asynccontextmanager
async def process(server: Server, queue: Queue) -> AsyncGenerator[Delivery]:
    """A process that takes the first message; if it has not settled it at the end, it dies with it."""
    async with opened(server) as broker:
        await broker.declare(Topology(queues=[queue]))
        async with broker.subscribe(Subscription(queue=queue.name, prefetch=1)) as deliveries:
            with trio.fail_after(SOON):
                delivery = await anext(deliveries)
            yield delivery


async def send(server: Server, queue: Queue) -> None:
    async with opened(server) as broker:
        await broker.declare(Topology(queues=[queue]))
        await broker.send(Envelope(subject=queue.name, body=b"a", id="a", headers={"h": 1}), exchange="")


async def attempt_of_the_next(server: Server, queue: Queue) -> int:
    """The attempt that a process sees which dies with the message."""
    async with process(server, queue) as delivery:
        return delivery.attempt


@pytest.mark.slow
async def test_a_message_with_which_process_after_process_dies_is_beyond_its_attempts(server: Server) -> None:
    """To declare a queue at RabbitMQ marks what is in it, so that there one process less is forgiven."""
    queue = Queue(name=f"crashes-{new_id()}")
    await send(server, queue)
    attempts = [await attempt_of_the_next(server, queue) for _ in range(7)]
    async with process(server, queue) as delivery:
        envelope = delivery.envelope
        delivery.settle_nowait(Ack())

    assert attempts in ([1] * (1 + FORGIVEN_NOTED) + [3, 4, 5], [1] * (2 + FORGIVEN_NOTED) + [3, 4])
    assert (envelope.id, envelope.subject, envelope.body, dict(envelope.headers)) == ("a", queue.name, b"a", {"h": 1})


@pytest.mark.slow
async def test_what_is_given_back_in_time_is_never_counted(server: Server) -> None:
    queue, attempts = Queue(name=f"returned-{new_id()}"), list[int]()
    await send(server, queue)
    for _ in range(6):
        async with opened(server) as broker:
            await broker.declare(Topology(queues=[queue]))
            async with broker.subscribe(Subscription(queue=queue.name, prefetch=1)) as deliveries:
                with trio.fail_after(SOON):
                    delivery = await anext(deliveries)
            attempts.append(delivery.attempt)  # a stop leaves the subscription before it gives back what is in hand
            if not delivery.settle_nowait(Return()):
                await delivery.settle(Return())

    assert attempts == [1] * 6


async def times_there(broker: StompBroker, queue: Queue) -> int:
    """How often the message is in its queue; what comes again with a note goes behind the first end."""
    ids = list[str]()
    await broker.declare(Topology(queues=[queue]))
    async with broker.subscribe(Subscription(queue=queue.name, prefetch=5)) as deliveries:
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


async def until_fetched(broker: StompBroker) -> None:
    """Wait until a copy with a note is here: it comes anew to whoever has noted that it came again."""
    [consumer] = broker._consumers
    with trio.fail_after(SOON):
        while not any(is_noted(delivery.frame.headers) for delivery in consumer._shelf):  # noqa: ASYNC110  nobody tells
            await trio.sleep(0.02)


@pytest.mark.slow
async def test_what_was_fetched_ahead_and_nobody_took_is_never_counted(server: Server) -> None:
    queue = Queue(name=f"ahead-{new_id()}")
    await send(server, queue)
    await attempt_of_the_next(server, queue)
    for _ in range(4):
        async with opened(server) as broker:
            await broker.declare(Topology(queues=[queue]))
            async with broker.subscribe(Subscription(queue=queue.name, prefetch=5)):
                await until_fetched(broker)

    assert await attempt_of_the_next(server, queue) == 1
    async with opened(server) as broker:
        assert await times_there(broker, queue) == 1


@pytest.mark.slow
async def test_a_retry_counts_on_from_what_was_noted(server: Server) -> None:
    queue = Queue(name=f"retried-{new_id()}")
    await send(server, queue)
    for _ in range(2 + FORGIVEN_NOTED):
        await attempt_of_the_next(server, queue)
    async with process(server, queue) as delivery:
        first = delivery.attempt
        await delivery.settle(Retry())
    async with process(server, queue) as delivery:
        second = delivery.attempt
        delivery.settle_nowait(Ack())

    assert first >= 3
    assert second == first + 1


@pytest.mark.slow
async def test_at_a_quorum_queue_a_message_is_tried_no_more_than_sixteen_times(rabbit: Server) -> None:
    queue = Queue(name=f"quorum-{new_id()}", options=StompOptions(type="quorum"))
    await send(rabbit, queue)
    attempts = [await attempt_of_the_next(rabbit, queue) for _ in range(17)]

    assert 1 < attempts.count(1) <= FORGIVEN + FORGIVEN_NOTED
    assert attempts == sorted(attempts)
    assert attempts[-1] > 3


@pytest.mark.slow
async def test_a_message_that_kills_its_process_does_not_do_so_for_ever(server: Server, tmp_path: Path) -> None:
    driver = "\n".join(f"{key} = {json.dumps(value)}" for key, value in server.table.items())
    async with opened(server) as broker:
        deaths = await deaths_of(broker, f"killer-{new_id()}", tmp_path, driver)

    assert 3 <= deaths <= 7
