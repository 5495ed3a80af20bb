"""qpid-proton's own client, which nobody here wrote, on the other side of RabbitMQ."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import suppress

import pytest
import trio

from kernel import Ack, DeadLetter, Envelope, new_id
from kernel.abc import Binding, Exchange, Queue, Subscription, Topology

from ..amqp._peer import Peer, start
from ._node import Amqp10Node

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def peer(rabbit: Amqp10Node) -> Iterator[Peer]:
    peer = start("proton_peer.py", "--port", str(rabbit.node.port))
    yield peer
    with suppress(BrokenPipeError):
        peer.end()


async def test_what_we_send_comes_to_proton_with_its_types(rabbit: Amqp10Node, peer: Peer) -> None:
    queue = f"to-proton-{new_id()}"
    sent = Envelope(
        subject=queue,
        body=b'{"a": 1}',
        headers={"int": 3, "float": 0.5, "flag": True, "none": None, "text": "snow \u2603", "list": [1]},
        content_type="application/json",
        reply_to="answers",
        correlation_id="c-1",
    )

    async with rabbit.open() as broker:
        await broker.declare(Topology(queues=[Queue(name=queue)]))
        await broker.send(sent, exchange="", mandatory=True)
        [got] = await peer.get("receive", address=f"/amq/queue/{queue}", count=1)

    assert got == {
        "body": '{"a": 1}',
        "type": "memoryview",
        "properties": {
            "int": ["int", 3],
            "float": ["float", 0.5],
            "flag": ["bool", True],
            "none": ["NoneType", None],
            "text": ["str", "snow \u2603"],
            "kernel-json": ["str", '{"list": [1]}'],
        },
        "subject": queue,
        "id": sent.id,
        "reply_to": "/amq/queue/answers",
        "correlation_id": "c-1",
        "content_type": "application/json",
        "durable": True,
    }


@pytest.mark.parametrize(
    ("body", "binary", "data"),
    [
        (base64.b64encode(b"\x00\xff").decode(), True, b"\x00\xff"),
        ("snow \u2603", False, "snow \u2603".encode()),
        ({"a": [1, None]}, False, b'{"a": [1, null]}'),
    ],
    ids=["bytes", "text", "map"],
)
async def test_what_proton_sends_comes_to_us(
    body: object, binary: bool, data: bytes, rabbit: Amqp10Node, peer: Peer
) -> None:
    queue, exchange = f"from-proton-{new_id()}", f"shop-{new_id()}"
    topology = Topology(
        exchanges=[Exchange(name=exchange)],
        queues=[Queue(name=queue)],
        bindings=[Binding(queue=queue, exchange=exchange, pattern="order.*")],
    )

    async with rabbit.open() as broker:
        await broker.declare(topology)
        address = f"/exchange/{exchange}/order.paid"
        fields = {"id": "uuid", "subject": "order.paid", "reply_to": "/queue/answers", "properties": {"n": 1, "t": "x"}}
        await peer.get("send", address=address, body=body, binary=binary, **fields)
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            with trio.fail_after(10):
                delivery = await anext(deliveries)
            await delivery.settle(Ack())

    envelope = delivery.envelope
    assert (envelope.body, envelope.subject, envelope.reply_to) == (data, "order.paid", "answers")
    assert dict(envelope.headers) == {"n": 1, "t": "x"}
    assert envelope.id.endswith("0007")


@pytest.mark.parametrize(("outcome", "comes_again"), [("accept", False), ("release", True)])
async def test_an_outcome_of_proton_is_what_we_would_have_said(
    outcome: str, comes_again: bool, rabbit: Amqp10Node, peer: Peer
) -> None:
    queue = f"outcome-{new_id()}"

    async with rabbit.open() as broker:
        await broker.declare(Topology(queues=[Queue(name=queue)]))
        await broker.send(Envelope(subject=queue, body=b"a"), exchange="", mandatory=True)
        await peer.get("receive", address=f"/amq/queue/{queue}", count=1, outcome=outcome)
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            with trio.move_on_after(0.5 if not comes_again else 10):
                delivery = await anext(deliveries)
                await delivery.settle(Ack())
                assert (comes_again, delivery.redelivered) == (True, True)
                return

    assert not comes_again


async def test_a_dead_letter_of_ours_tells_proton_why(rabbit: Amqp10Node, peer: Peer) -> None:
    queue, grave = f"work-{new_id()}", f"grave-{new_id()}"

    async with rabbit.open() as broker:
        await broker.declare(Topology(queues=[Queue(name=grave), Queue(name=queue, dead_letters=grave)]))
        await broker.send(Envelope(subject=queue, body=b"bad"), exchange="", mandatory=True)
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            with trio.fail_after(10):
                await (await anext(deliveries)).settle(DeadLetter("not good"))
        [letter] = await peer.get("receive", address=f"/amq/queue/{grave}", count=1)

    assert letter["body"] == "bad"
    assert letter["properties"]["kernel-death-reason"] == ["str", "not good"]
    assert letter["properties"]["kernel-death-attempts"] == ["int", 1]


@pytest.mark.parametrize("large", [1, 5])
async def test_a_message_that_is_too_large_is_put_aside_unread(large: int, rabbit: Amqp10Node, peer: Peer) -> None:
    """More than may be in hand, too."""
    queue, grave = f"small-{new_id()}", f"grave-{new_id()}"

    async with rabbit.open(max_message_bytes=100_000) as broker:
        await broker.declare(Topology(queues=[Queue(name=grave), Queue(name=queue, dead_letters=grave)]))
        for body in (*["x" * 300_000] * large, "small"):
            await peer.get("send", address=f"/amq/queue/{queue}", body=body)
        async with broker.subscribe(Subscription(queue=queue, prefetch=2)) as deliveries:
            with trio.fail_after(10):
                delivery = await anext(deliveries)
            await delivery.settle(Ack())
        letters = await peer.get("receive", address=f"/amq/queue/{grave}", count=large)

    assert delivery.envelope.body == b"small"
    assert [len(letter["body"]) for letter in letters] == [300_000] * large
