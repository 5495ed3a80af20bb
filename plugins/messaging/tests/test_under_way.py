"""Which of the things that happen to a call in one turn counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from kernel_memory import MemoryBroker
from kernel_messaging._calls import Calls

from kernel import Ack, Envelope
from kernel.abc import Broker, Queue, Subscription, Topology
from kernel.errors import UnavailableError


async def asked(broker: Broker) -> Envelope:
    """Return the request as the callee gets it."""
    async with broker.subscribe(Subscription(queue="sums", prefetch=1)) as deliveries:
        delivery = await anext(deliveries)
        await delivery.settle(Ack())
        return delivery.envelope


@pytest.mark.parametrize(
    "end",
    [lambda calls: calls.disconnect(UnavailableError("it broke")), lambda calls: calls.close()],
    ids=["the connection breaks", "the client is closed"],
)
async def test_an_answer_that_has_come_counts_whatever_happens_behind_it(
    end: Callable[[Calls], None], broker: MemoryBroker
) -> None:
    await broker.declare(Topology(queues=[Queue(name="sums")]))
    calls, answers = Calls(broker, "", trio.CapacityLimiter(1)), list[Envelope]()
    calls.connect("answers")

    async def ask() -> None:
        answers.append(await calls.ask(Envelope(subject="sums")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        reply = Envelope(subject="answers", correlation_id=(await asked(broker)).correlation_id)
        calls.accept(reply)
        end(calls)

    assert answers == [reply]


async def test_one_call_more_than_may_be_under_way_waits_for_the_end_of_another(broker: MemoryBroker) -> None:
    await broker.declare(Topology(queues=[Queue(name="sums")]))
    calls, answers = Calls(broker, "", trio.CapacityLimiter(1)), list[Envelope]()
    calls.connect("answers")

    async def ask() -> None:
        answers.append(await calls.ask(Envelope(subject="sums")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
        for _ in range(2):
            request = await asked(broker)
            in_flight = calls.in_flight
            calls.accept(Envelope(subject="answers", correlation_id=request.correlation_id))

    assert in_flight == 1
    assert len(answers) == 2
