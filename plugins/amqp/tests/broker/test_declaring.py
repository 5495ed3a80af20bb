"""What is declared, against the real broker: as other programs have it, with bounds, and dead letters of which type."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from kernel_amqp import AmqpBroker, AmqpConfig, AmqpOptions
from kernel_amqp._tables import ExchangeTable
from kernel_amqp.broker.topology import options_of
from pamqp import commands

from kernel import Envelope, new_id
from kernel.abc import Queue, Topology
from kernel.errors import QueueFullError, SendError

from ..bench import ask, depth, open_amqp

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rabbitmq")]


async def declare(broker: AmqpBroker, *queues: Queue) -> None:
    await broker.declare(Topology(queues=queues))


@pytest.mark.parametrize(
    ("arguments", "queue"),
    [
        ({}, Queue(name="")),  # Nameko, micro-framework
        ({}, Queue(name="", options=AmqpOptions(type="classic"))),
        ({"x-max-length": 1000}, Queue(name="", options=AmqpOptions(arguments={"x-max-length": 1000}))),  # Shiva
        ({"x-max-length-bytes": 9}, Queue(name="", options=AmqpOptions(arguments={"x-max-length-bytes": 9}))),
        (
            {"x-message-ttl": 1500, "x-dead-letter-exchange": "x"},
            Queue(name="", ttl=1.5, options=AmqpOptions(arguments={"x-dead-letter-exchange": "x"})),
        ),
        ({"x-expires": 60_000}, Queue(name="", options=AmqpOptions(expires=60.0))),
        (
            {"x-max-length": 5, "x-overflow": "reject-publish-dlx"},
            Queue(name="", options=AmqpOptions(arguments={"x-max-length": 5, "x-overflow": "reject-publish-dlx"})),
        ),
        ({"x-max-priority": 9}, Queue(name="", options=AmqpOptions(max_priority=9))),
    ],
    ids=str,
)
async def test_what_another_program_declares_is_declared_likewise(arguments: Any, queue: Queue) -> None:
    name = new_id()
    await ask(commands.Queue.Declare(queue=name, durable=True, arguments=arguments))
    async with open_amqp() as broker:
        await declare(broker, attrs.evolve(queue, name=name))


async def test_all_who_send_where_nobody_may_are_told_so() -> None:
    exchange, queue, told = new_id(), new_id(), list[str]()
    config = AmqpConfig(exchanges={exchange: ExchangeTable(internal=True, durable=False)})
    async with open_amqp(config) as broker:
        await declare(broker, Queue(name=queue))

        async def send_there() -> None:
            with pytest.raises(SendError) as caught:
                await broker.send(Envelope(subject="a"), exchange=exchange)
            told.append(type(caught.value).__name__)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(send_there)
            nursery.start_soon(send, broker, queue, 5)

        assert told == ["SendError"] * 20
        assert await depth(queue) == 5


async def test_a_bound_in_bytes_refuses() -> None:
    queue = new_id()
    async with open_amqp() as broker:
        await declare(broker, Queue(name=queue, durable=True, options=AmqpOptions(max_length_bytes=10)))
        with pytest.raises(QueueFullError):
            await send(broker, queue, 20)

        assert await depth(queue) in {2, 3}


async def send(broker: AmqpBroker, queue: str, count: int) -> None:
    for _ in range(count):
        await broker.send(Envelope(subject=queue, body=b"12345"), exchange="", mandatory=True)


async def test_dead_letters_of_a_quorum_queue_are_in_one_and_a_shared_place_is_of_the_first() -> None:
    name = new_id()
    quorum, classic = AmqpOptions(type="quorum"), AmqpOptions(type="classic")
    async with open_amqp() as broker:
        await declare(broker, Queue(name=f"{name}.dead"), Queue(name=name, dead_letters=f"{name}.dead", options=quorum))
        other = Queue(name=f"{name}.other", dead_letters=f"{name}.dead", options=classic)
        await declare(broker, Queue(name=f"{name}.dead"), other)

        assert options_of(broker._catalog._queues[f"{name}.dead"]).type == "quorum"
        # The broker has it so, too: as any other one it would be a conflict.
        await ask_for_quorum(f"{name}.dead")


async def ask_for_quorum(queue: str) -> None:
    answers = await ask(commands.Queue.Declare(queue=queue, durable=True, arguments={"x-queue-type": "quorum"}))
    assert len(answers) == 1
