"""Shiva's way of a message through a service: in by the body, out to the exchange of the replies."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from kernel_bpm import Routed

from kernel import Envelope, handles
from kernel.abc import Binding, Broker, Exchange, Queue, Subscription, Topology
from kernel.errors import RemoteError

GIVEN: list[Any] = []


class Bench:
    """Echoes, or fails."""

    @handles("shiva.bench")
    async def bench(self, message: dict[str, object]) -> object:
        await trio.lowlevel.checkpoint()
        if message.get("fail"):
            raise ValueError("no")
        return {"seen": message} if message else None


class Caller:
    """Keeps the drivers that it is given."""

    def __init__(self, queue: Broker, esb: Any, rpc: Any) -> None:
        GIVEN.append((queue, esb, rpc))

    async def run(self) -> None:
        await trio.sleep_forever()


def sender(plugin: str, **more: object) -> dict[str, object]:
    return {"plugin": plugin, "driver": "queue", "protocol": "bpm", "exchange": "ESB", **more}


MANIFEST = {
    "kernel": {"name": "bench"},
    "protocols": {"bpm": {"system_to": "peer"}},
    "drivers": {
        "queue": {"plugin": "memory"},
        "esb": sender("publisher"),
        "rpc": sender("rpc_client", bind_replies=True),
    },
    "dispatchers": {
        "bench": sender("consumer", reply_exchange="ESB", queue="shiva_benchmark", bindings=["shiva.bench", "any.key"])
    },
    "workers": {
        "bench": {"use": f"{__name__}:Bench", "dispatcher": "bench"},
        "caller": {"use": f"{__name__}:Caller"},
    },
}


@asynccontextmanager
async def service(open_kernel: Any) -> AsyncGenerator[tuple[Any, Broker, Any, Any]]:
    """Run the service, with a queue `replies` bound for its replies; yields it and the drivers of its caller."""
    async with open_kernel(MANIFEST, expected=ValueError) as running:
        broker, esb, rpc = GIVEN.pop()
        await broker.declare(
            Topology(
                exchanges=[Exchange(name="ESB")],
                queues=[Queue(name="replies")],
                bindings=[Binding(queue="replies", exchange="ESB", pattern="shiva.bench_reply")],
            )
        )
        yield running, broker, esb, rpc


async def first_reply(broker: Broker) -> Envelope:
    async with broker.subscribe(Subscription(queue="replies", prefetch=1)) as replies:
        async for reply in replies:
            return reply.envelope
    raise AssertionError("the subscription has ended")


async def test_a_result_is_replied_to_the_exchange_without_being_asked_for(open_kernel: Any) -> None:
    async with service(open_kernel) as (_, broker, esb, _):
        sent = await esb.publish("shiva.bench", Routed(params={"a": 1}, reference_id="71967781", route_key="any.key"))
        reply = json.loads((await first_reply(broker)).body)

    assert (reply["object"], reply["action"], reply["reference_id"]) == ("shiva", "bench_reply", "71967781")
    assert (reply["system_from"], reply["system_to"]) == ("peer", "bench")
    assert reply["params"] == {
        "status": {"success": True, "request_id": sent, "errors": []},
        "seen": {"a": 1},
    }


async def test_an_empty_result_and_an_error_are_not_replied(open_kernel: Any) -> None:
    async with service(open_kernel) as (running, broker, esb, _):
        await esb.publish("shiva.bench", {})
        await running.wait_settled()
        await esb.publish("shiva.bench", {"fail": True})
        await running.wait_settled()
        await esb.publish("shiva.bench", {"last": 1})
        reply = json.loads((await first_reply(broker)).body)

    assert reply["params"]["seen"] == {"last": 1}


async def test_a_call_is_answered_where_it_asks(open_kernel: Any) -> None:
    async with service(open_kernel) as (_, _, _, rpc):
        assert await rpc.shiva.bench(a=1) == {"seen": {"a": 1}}
        assert await rpc.call("shiva.bench", {}) == {}
        with pytest.raises(RemoteError, match="ValueError: no"):
            await rpc.shiva.bench(fail=True)
