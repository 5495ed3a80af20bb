"""The peers do what they are for: each talks with its own kind, so that a failure elsewhere is ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ._peer import Peer

pytestmark = pytest.mark.slow


async def test_nameko_talks_with_nameko(start_peer: Callable[..., Peer], unique: Callable[[str], str]) -> None:
    name, exchange = unique("desk"), unique("rpc")
    service = start_peer(
        "nameko_service.py", "--name", name, "--rpc-exchange", exchange, "--listen", name, "hi", "pool"
    )
    client = start_peer("nameko_client.py", "--rpc-exchange", exchange)
    await service.wait_ready()

    assert await client.get("call", service=name, method="add", args=[1], kwargs={"b": 3}) == 4
    assert (await client.ask("call", service=name, method="fail", args=["no"]))["error"] == "RemoteError"
    await client.get("dispatch", source=name, event="hi", payload={"x": 1})
    assert (await service.line(lambda line: "event" in line))["payload"] == {"x": 1}


async def test_micro_framework_talks_with_itself(start_peer: Callable[..., Peer], unique: Callable[[str], str]) -> None:
    name, other = unique("desk"), unique("client")
    service = start_peer("micro_service.py", "--name", name, "--listen", other, "hi")
    client = start_peer("micro_client.py", "--name", other)
    await service.wait_ready()

    assert await client.get("call", service=name, target="Desk.order", args=["tea"]) == {"sku": "tea", "quantity": 1}
    assert (await client.ask("call", service=name, target="fail", args=["no"]))["error"] == "ValueError"
    assert len(await client.get("discover", service=name)) == 5
    await client.get("dispatch", event="hi", payload={"x": 1})
    assert (await service.line(lambda line: "event" in line))["event"] == {"x": 1}


async def test_pika_gets_what_amqp_tools_publish(
    pika: Peer, amqp_tools: Callable[..., bytes], unique: Callable[[str], str]
) -> None:
    queue = unique("queue")
    await pika.get("method", name="queue_declare", queue=queue)
    amqp_tools("amqp-publish", f"--routing-key={queue}", "--body=tea", "--content-type=text/plain")

    assert (await pika.get("consume", queue=queue, count=1))[0]["body"] == "tea"
