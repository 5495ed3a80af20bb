"""Properties that only AMQP has, both ways, with pika on the other side, and what copies and commands keep of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner
from kernel_amqp.tools.commands import rabbitmq as command

from kernel import DeadLetter, Envelope, Retry
from kernel.abc import Delivery
from kernel.errors import EncodeError, SendError

from ._peer import Peer
from ._service import Inbox, serving

pytestmark = pytest.mark.slow

WIRE: dict[str, Any] = {
    "type": "order",
    "app_id": "shop",
    "timestamp": 1_790_000_000,
    "content_encoding": "gzip",
    "expiration": "600000",
    "user_id": "guest",
    "delivery_mode": 1,
}
HEADERS: dict[str, Any] = {
    "amqp-type": "order",
    "amqp-app-id": "shop",
    "amqp-timestamp": 1_790_000_000,
    "amqp-content-encoding": "gzip",
    "amqp-expiration": 600_000,
    "amqp-user-id": "guest",
    "amqp-delivery-mode": 1,
}
KEPT = {key: value for key, value in HEADERS.items() if key != "amqp-user-id"} | {"kernel-user-id": "guest"}


@pytest.fixture
def queue(unique: Callable[[str], str]) -> str:
    return unique("queue")


def consuming(queue: str, **table: Any) -> dict[str, dict[str, Any]]:
    binding = {"exchange": queue, "queue": queue, "bindings": ["order.#"], "protocol": "json"}
    return {"orders": {**binding, **table}}


async def test_a_handler_reads_what_pika_set(pika: Peer, queue: str) -> None:
    inbox = Inbox()

    async def orders(payload: Any, envelope: Envelope) -> None:
        inbox.put(envelope)

    async with serving({"orders": orders}, dispatchers=consuming(queue)):
        await pika.get("publish", exchange=queue, routing_key="order.created", body="1", **WIRE)
        await pika.get("publish", exchange=queue, routing_key="order.created", body="1", headers={"a": 1}, **WIRE)
        first, second = await inbox.get(2)

    assert first.headers == HEADERS
    assert second.headers == {"a": 1, **HEADERS}


async def test_pika_reads_what_a_publisher_set(pika: Peer, queue: str) -> None:
    await pika.get("method", name="queue_declare", queue=queue)
    straight = {"plugin": "publisher", "protocol": "json", "exchange": ""}
    async with serving({}, drivers={"straight": straight}) as service:
        publisher = service.resource("driver/straight")
        await publisher.publish(queue, 1, headers={"tenant": "a", **HEADERS})
        await publisher.publish(queue, 1)
    first, second = await pika.get("consume", queue=queue, count=2)

    assert first["properties"].items() >= WIRE.items()
    assert first["properties"]["headers"] == {"tenant": "a"}
    assert not second["properties"].keys() & (WIRE.keys() - {"delivery_mode"})
    assert second["properties"]["delivery_mode"] == 2


async def test_what_cannot_be_sent_is_an_error_of_its_sender_alone(pika: Peer, queue: str) -> None:
    await pika.get("method", name="queue_declare", queue=queue)
    straight = {"plugin": "publisher", "protocol": "json", "exchange": ""}
    raised: list[BaseException] = []

    async with serving({}, drivers={"straight": straight}) as service:
        publisher = service.resource("driver/straight")

        async def publish(**headers: Any) -> None:
            try:
                await publisher.publish(queue, 1, headers=headers)
            except (EncodeError, SendError) as error:
                raised.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: publish(**{"amqp-user-id": "somebody else"}))
            nursery.start_soon(lambda: publish(**{"amqp-timestamp": "now"}))
        await publish(**{"amqp-type": "order"})

    assert sorted(type(error).__name__ for error in raised) == ["EncodeError", "SendError"]
    assert [message["properties"]["type"] for message in await pika.get("consume", queue=queue, count=1)] == ["order"]


async def test_a_retry_and_a_dead_letter_have_them_too(pika: Peer, queue: str) -> None:
    inbox = Inbox()

    async def orders(payload: Any, delivery: Delivery) -> Retry | DeadLetter:
        inbox.put(delivery.envelope)
        return Retry(0.0) if delivery.attempt < 2 else DeadLetter("no use")

    async with serving({"orders": orders}, dispatchers=consuming(queue)) as service:
        await pika.get("publish", exchange=queue, routing_key="order.created", body="1", **WIRE)
        _, second = await inbox.get(2)
        await service.wait_settled(2)
    (letter,) = await pika.get("consume", queue=f"{queue}.dead", count=1)

    assert second.headers == KEPT
    wire = {key: value for key, value in WIRE.items() if key not in {"user_id", "expiration"}}
    assert letter["properties"].items() >= wire.items()
    assert letter["properties"]["headers"]["kernel-user-id"] == "guest"
    assert "expiration" not in letter["properties"], "what is put aside stays"


MANIFEST = """
[drivers.rabbit]
plugin = "amqp"

[drivers.rabbit.queues."{queue}"]
[drivers.rabbit.queues."{queue}.to"]
"""


def run(path: Path, *arguments: str) -> str:
    done = CliRunner().invoke(command, [*arguments, "--manifest", str(path)])
    assert done.exit_code == 0, done.output
    return done.output


async def test_commands_show_and_keep_them(pika: Peer, queue: str, tmp_path: Path) -> None:
    path = tmp_path / "kernel.toml"
    path.write_text(MANIFEST.format(queue=queue), encoding="utf-8")
    for name in (queue, f"{queue}.to"):
        await pika.get("method", name="queue_declare", queue=name, durable=True)
    await pika.get("publish", exchange="", routing_key=queue, body="1", **WIRE)

    peeked = await trio.to_thread.run_sync(lambda: run(path, "peek", queue, "--json"))
    await trio.to_thread.run_sync(lambda: run(path, "move", queue, f"{queue}.to"))
    await trio.to_thread.run_sync(lambda: run(path, "retry", f"{queue}.to", "--to", queue))
    (message,) = await pika.get("consume", queue=queue, count=1)

    (record,) = [json.loads(line) for line in peeked.splitlines()]
    assert record["headers"] == HEADERS
    properties = message["properties"]
    assert properties.items() >= {key: value for key, value in WIRE.items() if key != "user_id"}.items()
    assert properties["headers"]["kernel-user-id"] == "guest"
