"""Debian's amqp-tools on the other side: written in C, with rabbitmq-c, and so with nothing of ours or of pamqp."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio

from kernel import Envelope

from ._peer import Peer
from ._service import Inbox, serving

pytestmark = pytest.mark.slow


async def test_what_amqp_publish_sends_is_handled(
    amqp_tools: Callable[..., bytes], unique: Callable[[str], str]
) -> None:
    exchange, queue, inbox = unique("exchange"), unique("queue"), Inbox()

    async def orders(payload: Any, envelope: Envelope) -> None:
        inbox.put((payload, envelope.subject, envelope.content_type))

    table = {"protocol": "json", "exchange": exchange, "queue": queue, "bindings": ["order.#"]}
    async with serving({"orders": orders}, dispatchers={"orders": table}) as service:
        common = (f"--exchange={exchange}", "--routing-key=order.created", "--content-type=application/json")
        await run(amqp_tools, "amqp-publish", *common, "--persistent", '--body={"sku": "tea"}')
        await run(amqp_tools, "amqp-publish", *common, "--body=[]")
        await service.wait_settled(2)

    assert inbox.seen == [
        ({"sku": "tea"}, "order.created", "application/json"),
        ([], "order.created", "application/json"),
    ]


async def test_amqp_get_and_amqp_consume_take_what_we_publish(
    amqp_tools: Callable[..., bytes], pika: Peer, unique: Callable[[str], str]
) -> None:
    exchange, queue = unique("exchange"), unique("queue")
    events = {"plugin": "publisher", "protocol": "json", "exchange": exchange, "mandatory": True}
    async with serving({}, drivers={"events": events}) as service:
        await pika.get("method", name="queue_declare", queue=queue, durable=True)
        await pika.get("method", name="queue_bind", queue=queue, exchange=exchange, routing_key="order.*")
        for number in range(3):
            await service.publish("events", "order.created", {"number": number})
        first = await run(amqp_tools, "amqp-get", f"--queue={queue}")
        rest = await run(amqp_tools, "amqp-consume", f"--queue={queue}", "--count=2", "cat")

    assert json.loads(first) == {"number": 0}
    assert rest.replace(b" ", b"") == b'{"number":1}{"number":2}'


async def run(tools: Callable[..., bytes], *command: str) -> bytes:
    """Run a command while the service goes on."""
    return await trio.to_thread.run_sync(lambda: tools(*command))
