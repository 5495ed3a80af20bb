"""service-framework 0.0.20 on the other side of ZeroMQ: both ways of calls and of events, and what it cannot do."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import trio

from kernel import Envelope, answers, handles
from kernel._manifest.registry import Registry, discover
from kernel.errors import UnknownOutcomeError
from kernel.testing import RunningService, open_kernel

from ..amqp._peer import Peer
from ..amqp._service import Inbox

pytestmark = pytest.mark.slow

StartPeer = Callable[..., Peer]
PEER = "service_framework_peer.py"
SPOKEN = {"protocol": "service_framework"}


class Desk:
    """What its requester and its publisher reach."""

    def __init__(self) -> None:
        self.inbox = Inbox()

    @answers("quote")
    async def quote(self, sku: str, amount: int, envelope: Envelope) -> dict[str, Any]:
        self.inbox.put((sku, amount))
        return {"price": Decimal("1.50") * amount, "tags": {"a", "b"}}

    @handles("quotes")
    async def heard(self, payload: dict[str, Decimal]) -> None:
        self.inbox.put(payload)


def opened(**tables: Any) -> Any:
    workers = (
        {"desk": {"use": "desk", "dispatcher": next(iter(tables["dispatchers"]))}} if "dispatchers" in tables else {}
    )
    plugins = (*discover().plugins, *Registry.of({"workers": {"desk": Desk}}).plugins)
    return open_kernel({"kernel": {"name": "ours"}, "workers": workers, **tables}, registry=Registry(plugins))


async def test_its_requester_calls_us(start_peer: StartPeer, port: int) -> None:
    peer = start_peer(PEER)
    desk = {"plugin": "zmq_reply", "bind": [f"127.0.0.1:{port}"], "subject": "quote", **SPOKEN}
    async with opened(dispatchers={"desk": desk}) as service:
        await peer.get("connect", kind="requester", address=f"127.0.0.1:{port}")
        await peer.get("connect", kind="loose", address=f"127.0.0.1:{port}")
        answered = await peer.get("send", kind="requester", sku="tea", amount=3)
        refused = await peer.ask("send", kind="loose", sku="tea", amount="three")
        again = await peer.get("send", kind="requester", sku="oil", amount=1)
        inbox = service.resource("worker/desk").inbox.seen

    assert answered == {"price": "4.50", "tags": ["a", "b"]}
    assert refused["error"] == "ValueError"  # its requester's own, about an answer without arguments
    assert again["price"] == "1.50"
    assert inbox == [("tea", 3), ("oil", 1)]


async def test_we_call_its_replyer(start_peer: StartPeer, port: int) -> None:
    peer = start_peer(PEER, "--serve", str(port))
    await peer.wait_ready()
    table = {"plugin": "zmq_request", "connect": [f"127.0.0.1:{port}"], "timeout": 10.0, **SPOKEN}
    async with opened(drivers={"quote": table}) as service:
        rpc = service.resource("driver/quote")
        answered: list[dict[str, Any]] = []

        async def call(amount: int) -> None:
            answered.append(await rpc.quote(sku="tea", amount=amount))

        async with trio.open_nursery() as nursery:  # it takes them one after the other
            for amount in (1, 2, 3):
                nursery.start_soon(call, amount)
        got = await peer.line(lambda line: "got" in line)

    assert sorted(answer["price"] for answer in answered) == [Decimal("1.50"), Decimal("3.00"), Decimal("4.50")]
    assert answered[0]["tags"] == {"a", "b"}
    assert got["got"]["sku"] == "tea"


async def test_a_wrong_argument_ends_its_replyer_and_not_our_call(start_peer: StartPeer, port: int) -> None:
    peer = start_peer(PEER, "--serve", str(port))
    await peer.wait_ready()
    table = {"plugin": "zmq_request", "connect": [f"127.0.0.1:{port}"], "timeout": 10.0, **SPOKEN}
    async with opened(drivers={"quote": table}) as service:
        with pytest.raises(UnknownOutcomeError):
            await service.call("quote", "quote", {"sku": "tea"})


async def test_its_publisher_reaches_our_subscriber(start_peer: StartPeer, port: int) -> None:
    peer = start_peer(PEER)
    await peer.get("connect", kind="publisher", address=f"127.0.0.1:{port}")
    ear = {
        "plugin": "zmq_subscribe",
        "connect": [f"127.0.0.1:{port}"],
        "topics": ["quotes"],
        "framing": "service_framework",
        **SPOKEN,
    }
    async with opened(dispatchers={"ear": ear}) as service:
        heard = await until(service, lambda: peer.get("send", kind="publisher", price="2.50"))

    assert heard[0] == {"price": Decimal("2.50")}


async def until(service: RunningService, publish: Callable[[], Any]) -> list[Any]:
    """Publish until something is heard: to subscribe takes effect some time after connecting."""
    inbox = service.resource("worker/desk").inbox
    with trio.fail_after(10):
        while not inbox.seen:
            await publish()
            await trio.sleep(0.01)
    return list(inbox.seen)


async def test_our_publisher_reaches_its_subscriber(start_peer: StartPeer, port: int) -> None:
    peer = start_peer(PEER)
    await peer.get("subscribe", address=f"127.0.0.1:{port}")
    news = {"plugin": "zmq_publish", "bind": [f"127.0.0.1:{port}"], "framing": "service_framework", **SPOKEN}
    heard = None
    async with opened(drivers={"news": news}) as service:
        with trio.fail_after(10):
            while heard is None:
                await service.publish("news", "quotes", {"price": Decimal("2.50"), "tags": {"a"}})
                await service.publish("news", "other", {"price": 1})
                heard = await peer.get("heard")

    assert heard == {"price": ["Decimal", "2.50"], "tags": ["set", "{'a'}"]}
