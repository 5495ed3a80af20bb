"""stomp.py on the other side: frames byte for byte, and messages both ways through both servers."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
from kernel_stomp import StompDriver
from kernel_stomp.core import Frame, Limits, Parser, encode

from kernel import Ack, Envelope
from kernel.abc import Binding, Exchange, Queue, Subscription, Topology
from kernel.testing import fake_context

from ..amqp._peer import Peer
from .conftest import Server
from .test_conformance import config_of

pytestmark = pytest.mark.slow

StartPeer = Callable[..., Peer]
CHARS = "ab:\\\n\r\t 0é🍵\u2028%/"


def some_frames(seed: int, count: int) -> list[tuple[str, dict[str, str], bytes]]:
    """Return frames with every character that has an escape; stomp.py escapes no names."""
    chance = random.Random(seed)

    def text() -> str:
        return "".join(chance.choices(CHARS, k=chance.randint(0, 12)))

    def headers() -> dict[str, str]:
        return {f"h-{number}": text() for number in range(chance.randint(0, 6))}

    return [("SEND", headers(), chance.randbytes(chance.randint(0, 60))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(4))
async def test_what_stomp_py_writes_is_read_as_it_was_meant(seed: int, start_peer: StartPeer) -> None:
    frames = some_frames(seed, 250)
    told = [(command, headers, base64.b64encode(body).decode()) for command, headers, body in frames]
    written: list[str] = await start_peer(0).get("write", frames=told)
    parser = Parser(frozenset({"SEND"}), Limits())
    parser.feed(b"\n".join(map(base64.b64decode, written)))

    read = [parser.next_frame() for _ in frames]

    assert [frame and (frame.command, _own(frame.headers), frame.body) for frame in read] == frames


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_written_is_read_by_stomp_py_as_it_was_meant(seed: int, start_peer: StartPeer) -> None:
    frames = some_frames(seed, 250)
    data = [encode(Frame(*frame), "1.2")[:-1] for frame in frames]  # stomp.py cuts the NUL off before

    read: list[dict[str, Any]] = await start_peer(0).get(
        "read", frames=[base64.b64encode(piece).decode() for piece in data]
    )

    told = [(one["command"], _own(one["headers"]), base64.b64decode(one["body"])) for one in read]
    assert told == frames


def _own(headers: Any) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key.startswith("h-")}


async def test_what_stomp_py_sends_is_delivered_and_acknowledged(server: Server, start_peer: StartPeer) -> None:
    queue = f"from-stomp-py-{server.kind}"
    async with StompDriver(config=config_of(server), context=fake_context("driver/q")).open() as broker:
        await broker.declare(Topology(queues=[Queue(name=queue)]))
        peer = start_peer(server.port)
        await peer.get(
            "send",
            destination=f"/queue/{queue}" if server.kind == "activemq" else f"/amq/queue/{queue}",
            body="Grüße 🍵",
            tenant="a:b",
            correlation_id="c-1",
            reply_to="/queue/answers",
            persistent="true",
        )
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            with trio.fail_after(10):
                delivery = await anext(deliveries)
            envelope = delivery.envelope
            await delivery.settle(Ack())

    assert envelope.body.decode() == "Grüße 🍵"
    assert dict(envelope.headers) == {"tenant": "a:b"}
    assert (envelope.subject, envelope.correlation_id, envelope.reply_to) == (queue, "c-1", "answers")
    assert delivery.attempt == 1


async def test_what_is_sent_is_what_stomp_py_gets(server: Server, start_peer: StartPeer) -> None:
    queue = f"to-stomp-py-{server.kind}"
    async with StompDriver(config=config_of(server), context=fake_context("driver/q")).open() as broker:
        await broker.declare(
            Topology(
                exchanges=[Exchange(name="shop")],
                queues=[Queue(name=queue)],
                bindings=[Binding(queue=queue, exchange="shop", pattern="order.*")],
            )
        )
        place = f"/amq/queue/{queue}" if server.kind == "rabbitmq" else f"/queue/Consumer.{queue}.VirtualTopic.shop"
        peer = start_peer(server.port)
        await peer.get("subscribe", destination=place)
        sent = Envelope(
            subject="order.created", body="🍵".encode(), headers={"tenant": "a:b\\c"}, content_type="text/plain"
        )
        await broker.send(sent, exchange="shop")
        got: dict[str, Any] = await peer.get("take")

    assert got["body"] == "🍵"
    headers = got["headers"]
    assert {key: headers.get(key) for key in ("tenant", "content-type", "kernel-subject")} == {
        "tenant": "a:b\\c",
        "content-type": "text/plain",
        "kernel-subject": "order.created",
    }


async def test_a_request_of_stomp_py_is_answered_where_it_waits(rabbit: Server, start_peer: StartPeer) -> None:
    """Its `/temp-queue/...` is a place of the server's own making by the time that it is read."""
    queue = "questions"
    async with StompDriver(config=config_of(rabbit), context=fake_context("driver/q")).open() as broker:
        await broker.declare(Topology(queues=[Queue(name=queue)]))
        peer = start_peer(rabbit.port)
        await peer.get(
            "send", destination=f"/amq/queue/{queue}", body="?", reply_to="/temp-queue/mine", correlation_id="c-1"
        )
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            with trio.fail_after(10):
                delivery = await anext(deliveries)
            answer = Envelope(subject=delivery.envelope.reply_to, body=b"!", correlation_id="c-1")
            await delivery.settle(Ack(answer))
        got: dict[str, Any] = await peer.get("take")

    assert (got["body"], got["headers"]["correlation-id"]) == ("!", "c-1")
