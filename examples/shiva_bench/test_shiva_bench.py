"""The benchmark over a real RabbitMQ: what is sent is counted, and the reply is Shiva's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kernel import Envelope
from kernel.abc import Binding, Broker, Exchange, Queue, Subscription, Topology

MANIFEST = Path(__file__).with_name("kernel.toml")
pytestmark = pytest.mark.slow


async def reply_of(broker: Broker, queue: str) -> Envelope:
    async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as replies:
        async for reply in replies:
            return reply.envelope
    raise AssertionError("the subscription has ended")


async def test_a_hundred_messages_are_counted_and_the_last_is_replied_to(open_example: Any, own_name: Any) -> None:
    exchange, queue, replies = own_name("esb"), own_name("bench"), own_name("replies")
    async with open_example(MANIFEST, {"ESB": exchange, "QUEUE": queue}) as service:
        broker = service.resource("driver/rabbit")
        await broker.declare(
            Topology(
                exchanges=[Exchange(name=exchange)],
                queues=[Queue(name=replies, exclusive=True, durable=False)],
                bindings=[Binding(queue=replies, exchange=exchange, pattern="shiva.bench_reply")],
            )
        )
        await service.wait_settled(100)
        await service.publish("esb", "shiva.bench", {"number": -1})
        settled = await service.wait_settled(101)
        for number in range(99):
            await service.publish("esb", "shiva.bench", {"number": number})
        reply = json.loads((await reply_of(broker, replies)).body)

    assert {event.worker for event in settled} == {"worker/shiva_benchmark"}
    assert [type(event.outcome).__name__ for event in settled] == ["Ack"] * 101
    assert (reply["system_from"], reply["object"], reply["action"]) == ("shiva_benchmark", "shiva", "bench_reply")
    assert reply["params"]["seen"] in {100, 200}
    assert reply["params"]["status"]["success"] is True


async def test_a_message_without_a_number_is_tried_three_times_and_put_aside(open_example: Any, own_name: Any) -> None:
    exchange, queue = own_name("esb"), own_name("bench")
    quiet = {"workers.flood": {"use": "rmq_bench:Flood", "config": {"messages": 0}, "restart": {"policy": "never"}}}
    async with open_example(MANIFEST, {"ESB": exchange, "QUEUE": queue}, replace=quiet, expected=KeyError) as service:
        await service.publish("esb", "shiva.bench", {})
        settled = await service.wait_settled(3)

    assert [event.attempt for event in settled] == [1, 2, 3]
    assert "KeyError" in settled[-1].outcome.reason
