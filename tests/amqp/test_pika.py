"""pika on the other side: messages both ways, byte for byte, and what each says when the other declares otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio

from kernel import Envelope, answers, handles
from kernel.errors import ConflictError, RemoteError, StartupError, UnroutableError

from ._errors import cause_of
from ._peer import Peer
from ._service import Inbox, serving

pytestmark = pytest.mark.slow

ORDER = {"sku": "tea", "note": "Grüße 🍵", "lines": [1, 2.5, None, True]}


@pytest.fixture
def exchange(unique: Callable[[str], str]) -> str:
    return unique("exchange")


@pytest.fixture
def queue(unique: Callable[[str], str]) -> str:
    return unique("queue")


def consuming(exchange: str, queue: str, **table: Any) -> dict[str, dict[str, Any]]:
    """Return the table of a dispatcher for the worker `orders`."""
    binding = {"exchange": exchange, "queue": queue, "bindings": ["order.#"], "protocol": "json"}
    return {"orders": {**binding, **table}}


async def test_what_pika_publishes_is_handled_and_acknowledged(pika: Peer, exchange: str, queue: str) -> None:
    inbox = Inbox()

    async def orders(payload: Any, envelope: Envelope) -> None:
        inbox.put((payload, envelope))

    async with serving({"orders": orders}, dispatchers=consuming(exchange, queue)) as service:
        await pika.get(
            "publish",
            exchange=exchange,
            routing_key="order.created",
            body=json.dumps(ORDER),
            content_type="application/json",
            message_id="m1",
            correlation_id="c1",
            headers={"tenant": "nord", "tags": ["a", {"b": None}], "count": 3},
        )
        ((payload, envelope),) = await inbox.get(1)
        await service.wait_settled(1)

    assert payload == ORDER
    assert (envelope.subject, envelope.id, envelope.correlation_id) == ("order.created", "m1", "c1")
    assert envelope.headers == {"tenant": "nord", "tags": ["a", {"b": None}], "count": 3}
    assert (await pika.get("method", name="queue_declare", queue=queue, passive=True))["message_count"] == 0


async def test_pika_gets_what_we_publish(pika: Peer, exchange: str, queue: str) -> None:
    await pika.get("method", name="exchange_declare", exchange=exchange, exchange_type="topic", durable=True)
    await pika.get("method", name="queue_declare", queue=queue)
    await pika.get("method", name="queue_bind", queue=queue, exchange=exchange, routing_key="order.*")
    events = {"plugin": "publisher", "protocol": "json", "exchange": exchange}

    async with serving({}, drivers={"events": events}) as service:
        publisher = service.resource("driver/events")
        sent = await publisher.publish("order.created", ORDER, headers={"tenant": "nord", "list": [1, {"a": None}]})
        (message,) = await pika.get("consume", queue=queue, count=1)

    properties = message["properties"]
    assert (message["exchange"], message["routing_key"]) == (exchange, "order.created")
    assert json.loads(message["body"]) == ORDER
    assert properties["message_id"] == sent
    assert properties["content_type"] == "application/json"
    assert properties["delivery_mode"] == 2
    assert properties["headers"] == {"tenant": "nord", "list": [1, {"a": None}]}


async def test_messages_of_many_frames_pass_both_ways(pika: Peer, exchange: str, queue: str) -> None:
    inbox = Inbox()
    text = "0123456789abcdef" * 65_536  # 1 MiB: eight frames and a bit

    async def orders(payload: str) -> None:
        inbox.put(payload)

    back = {"plugin": "publisher", "protocol": "json", "exchange": exchange}
    await pika.get("method", name="queue_declare", queue=f"{queue}.back")
    async with serving({"orders": orders}, drivers={"back": back}, dispatchers=consuming(exchange, queue)) as service:
        await pika.get("method", name="queue_bind", queue=f"{queue}.back", exchange=exchange, routing_key="back")
        await pika.get("publish", exchange=exchange, routing_key="order.long", body=json.dumps(text))
        assert await inbox.get(1) == [text]
        await service.publish("back", "back", text)

    (message,) = await pika.get("consume", queue=f"{queue}.back", count=1)
    assert json.loads(message["body"]) == text


async def test_pika_asks_and_we_answer(pika: Peer, exchange: str, queue: str) -> None:
    class Orders:
        @answers("order.price")
        async def price(self, sku: str, amount: int = 1) -> int:
            if sku == "poison":
                raise ValueError("not for sale")
            return 3 * amount

    replies = f"{queue}.replies"
    await pika.get("method", name="queue_declare", queue=replies)
    request = {"exchange": exchange, "routing_key": "order.price", "reply_to": replies}
    async with serving({"orders": Orders}, dispatchers=consuming(exchange, queue)):
        await pika.get("publish", body='{"sku": "tea", "amount": 2}', correlation_id="1", **request)
        await pika.get("publish", body='["tea"]', correlation_id="2", **request)
        await pika.get("publish", body='["poison"]', correlation_id="3", **request)
        await pika.get("publish", body='{"skew": "tea"}', correlation_id="4", **request)
        await pika.get("publish", body="not json", correlation_id="5", **request)
        messages = await pika.get("consume", queue=replies, count=5)

    answered = {message["properties"]["correlation_id"]: json.loads(message["body"]) for message in messages}
    assert answered["1"] == {"result": 6}
    assert answered["2"] == {"result": 3}
    assert answered["3"]["error"]["type"] == "ValueError"
    assert "skew" in answered["4"]["error"]["message"]
    assert answered["5"]["error"]["type"] == "DecodeError"


async def test_we_ask_and_pika_answers(pika: Peer, exchange: str, queue: str) -> None:
    sums = {"plugin": "rpc_client", "protocol": "json", "exchange": exchange}
    results: list[object] = []
    async with serving({}, drivers={"sums": sums}) as service:
        await pika.get("method", name="queue_declare", queue=queue)
        await pika.get("method", name="queue_bind", queue=queue, exchange=exchange, routing_key="sum.*")

        async def ask() -> None:
            results.append(await service.call("sums", "sum.add", {"a": 1, "b": 2}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            (request,) = await pika.get("consume", queue=queue, count=1)
            properties = request["properties"]
            await pika.get(
                "publish",
                exchange="",
                routing_key=properties["reply_to"],
                correlation_id=properties["correlation_id"],
                content_type="application/json",
                body='{"result": 3}',
            )
        with pytest.raises(UnroutableError, match="nobody"):
            await service.call("sums", "nobody.listens", {})

    assert results == [3]
    assert json.loads(request["body"]) == {"a": 1, "b": 2}


async def test_what_cannot_be_read_is_put_aside_with_the_reason(pika: Peer, exchange: str, queue: str) -> None:
    async def orders(payload: Any) -> None:
        raise AssertionError("nothing can be read")

    async with serving({"orders": orders}, dispatchers=consuming(exchange, queue)) as service:
        await pika.get("publish", exchange=exchange, routing_key="order.created", body='{"half', headers={"n": 1})
        await service.wait_settled(1)

    (letter,) = await pika.get("consume", queue=f"{queue}.dead", count=1)
    headers = letter["properties"]["headers"]
    assert letter["body"] == '{"half'
    assert headers["n"] == 1
    assert headers["kernel-death-reason"].startswith("cannot be decoded")
    assert (headers["kernel-death-queue"], headers["kernel-death-subject"]) == (queue, "order.created")


async def test_an_exchange_of_another_type_is_a_conflict_that_names_both(pika: Peer, exchange: str, queue: str) -> None:
    async def orders(payload: Any) -> None: ...

    await pika.get("method", name="exchange_declare", exchange=exchange, exchange_type="fanout", durable=True)
    dispatchers = consuming(exchange, queue, restart={"policy": "never"})
    with pytest.raises(StartupError) as raised:
        async with serving({"orders": orders}, dispatchers=dispatchers):
            raise AssertionError("it must not become ready")

    conflict = cause_of(raised.value, ConflictError)
    assert exchange in str(conflict)
    assert "fanout" in str(conflict)
    assert "topic" in str(conflict)


async def test_either_side_may_declare_first(pika: Peer, exchange: str, queue: str) -> None:
    inbox = Inbox()

    async def orders(payload: Any) -> None:
        inbox.put(payload)

    topic = {"name": "exchange_declare", "exchange": exchange, "exchange_type": "topic", "durable": True}
    await pika.get("method", **topic)
    async with serving({"orders": orders}, dispatchers=consuming(exchange, queue)):
        await pika.get("method", **topic)
        await pika.get("publish", exchange=exchange, routing_key="order.created", body="1")
        assert await inbox.get(1) == [1]
    await pika.get("method", **topic)


async def test_what_was_published_while_we_were_away_is_handled_later(pika: Peer, exchange: str, queue: str) -> None:
    inbox = Inbox()

    class Orders:
        @handles("order.*")
        async def order(self, payload: int) -> None:
            inbox.put(payload)

    async with serving({"orders": Orders}, dispatchers=consuming(exchange, queue)):
        pass
    for number in range(20):
        await pika.get("publish", exchange=exchange, routing_key="order.created", body=str(number))
    async with serving({"orders": Orders}, dispatchers=consuming(exchange, queue, concurrency=1)):
        assert await inbox.get(20) == list(range(20))


async def test_an_error_of_ours_reaches_our_caller_over_the_broker(exchange: str, queue: str, pika: Peer) -> None:
    class Orders:
        @answers("order.price")
        async def price(self, sku: str) -> int:
            raise ValueError(f"no {sku}")

    client = {"plugin": "rpc_client", "protocol": "json", "exchange": exchange}
    dispatchers = consuming(exchange, queue)
    async with serving({"orders": Orders}, drivers={"client": client}, dispatchers=dispatchers) as service:
        with pytest.raises(RemoteError, match="no tea"):
            await service.call("client", "order.price", {"sku": "tea"})
