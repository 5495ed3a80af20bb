"""Nameko 2.14 on the other side of calls: it calls us, we call it, errors both ways, and ids of calls continued."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, final

import attrs
import pytest

from kernel import Envelope, answers, new_id
from kernel.errors import RemoteError, UnroutableError
from kernel.testing import RunningService

from ._peer import Peer
from ._service import AS_NAMEKO, serving

pytestmark = pytest.mark.slow


@final
@attrs.frozen
class Names:
    """What this file's services are called."""

    exchange: str
    desk: str
    """Nameko's."""
    ours: str


@pytest.fixture(scope="module")
def names(mark: str) -> Names:
    return Names(*(f"{mark}{word}{new_id()[:4]}" for word in ("rpc", "desk", "ours")))


@pytest.fixture(scope="module")
def desk(start_lasting_peer: Callable[..., Peer], names: Names) -> Peer:
    """A Nameko service; its `relay` calls us."""
    arguments = ("--name", names.desk, "--rpc-exchange", names.exchange, "--calls", names.ours)
    return start_lasting_peer("nameko_service.py", *arguments)


@pytest.fixture(scope="module")
def client(start_lasting_peer: Callable[..., Peer], names: Names) -> Peer:
    """Nameko's standalone client."""
    return start_lasting_peer("nameko_client.py", "--rpc-exchange", names.exchange)


class UnpaidError(Exception):
    """An error of ours that Nameko does not know."""


class Ours:
    """What we offer; `rpc` calls Nameko."""

    def __init__(self, rpc: Any) -> None:
        self.rpc = rpc

    @answers("*.add")
    async def add(self, a: int, b: int = 1) -> int:
        return a + b

    @answers("*.echo")
    async def echo(self, payload: Any) -> Any:
        return payload

    @answers("*.fail")
    async def fail(self, text: str) -> None:
        raise ValueError(text)

    @answers("*.unpaid")
    async def unpaid(self, number: int) -> None:
        raise UnpaidError(number, "euro")

    @answers("*.strange")
    async def strange(self) -> object:
        return object()

    @answers("*.context")
    async def context(self, envelope: Envelope) -> Mapping[str, object]:
        return dict(envelope.headers)

    @answers("*.relay")
    async def relay(self, service: str, method: str) -> Any:
        return await self.rpc.call(f"{service}.{method}", [])


def open_ours(names: Names, **protocol: Any) -> AbstractAsyncContextManager[RunningService]:
    common = {"protocol": "nameko", "exchange": names.exchange}
    queue = {"queue": f"rpc-{names.ours}", "bindings": [f"{names.ours}.*"], "reply_exchange": names.exchange}
    return serving(
        {"ours": Ours},
        name=names.ours,
        drivers={"rpc": {"plugin": "rpc_client", "bind_replies": True, **common}},
        dispatchers={"ours": {**common, **queue, **AS_NAMEKO}},
        protocols={"nameko": {"plugin": "nameko_rpc", **protocol}},
    )


# --- Nameko calls us ------------------------------------------------------------------------------------------------


async def test_nameko_calls_us_with_arguments_by_position_and_by_name(client: Peer, names: Names) -> None:
    async with open_ours(names):
        call = {"do": "call", "service": names.ours}
        assert await client.get(**call, method="add", args=[1], kwargs={"b": 3}) == 4
        assert await client.get(**call, method="add", args=[1]) == 2
        assert await client.get(**call, method="add", kwargs={"a": 5}) == 6
        assert await client.get(**call, method="echo", args=[{"sku": "Grüße", "lines": [1, None, 2.5]}]) == {
            "sku": "Grüße",
            "lines": [1, None, 2.5],
        }
        assert await client.get(
            "call_many", service=names.ours, method="add", arguments=[[n, n] for n in range(30)]
        ) == [2 * n for n in range(30)]


@pytest.mark.parametrize(
    ("method", "args", "expected"),
    [
        pytest.param("nothing", [], {"error": "MethodNotFound", "text": "nothing"}, id="unknown method"),
        pytest.param("add", [1, 2, 3], {"error": "IncorrectSignature"}, id="too many arguments"),
        pytest.param("add", ["x"], {"error": "IncorrectSignature"}, id="an argument of another type"),
        pytest.param("fail", ["no tea"], {"exc_type": "ValueError", "value": "no tea"}, id="ValueError"),
        pytest.param("unpaid", [3], {"exc_type": "UnpaidError", "value": "(3, 'euro')"}, id="an error of ours"),
        pytest.param("strange", [], {"exc_type": "UnserializableValueError"}, id="a result that is no JSON"),
    ],
)
async def test_nameko_gets_our_errors(
    client: Peer, names: Names, method: str, args: list[Any], expected: dict[str, str]
) -> None:
    async with open_ours(names):
        answer = await client.ask("call", service=names.ours, method=method, args=args)

    assert expected.items() <= answer.items(), answer


@pytest.mark.parametrize(
    "body", ['{"args": []}', '{"kwargs": {}}', "[]", "null", "not json", '{"args": 1, "kwargs": 2}']
)
async def test_a_malformed_request_is_answered_as_nameko_does(
    client: Peer, pika: Peer, names: Names, unique: Callable[[str], str], body: str
) -> None:
    replies = unique("replies")
    await pika.get("method", name="queue_declare", queue=replies)
    async with open_ours(names):
        await pika.get("method", name="queue_bind", queue=replies, exchange=names.exchange, routing_key=replies)
        await pika.get(
            "publish",
            exchange=names.exchange,
            routing_key=f"{names.ours}.add",
            body=body,
            reply_to=replies,
            correlation_id="7",
            content_type="application/json",
            content_encoding="utf-8",
        )
        (message,) = await pika.get("consume", queue=replies, count=1)
        assert await client.get("call", service=names.ours, method="add", args=[1]) == 2

    reply = json.loads(message["body"])
    assert message["properties"]["correlation_id"] == "7"
    assert message["exchange"] == names.exchange
    assert reply["result"] is None
    assert reply["error"].keys() == {"exc_type", "exc_path", "exc_args", "value"}
    assert reply["error"]["exc_path"] == "nameko.exceptions.MalformedRequest"


async def test_our_reply_looks_as_nameko_s_own(
    desk: Peer, pika: Peer, names: Names, unique: Callable[[str], str]
) -> None:
    replies = unique("replies")
    await pika.get("method", name="queue_declare", queue=replies)
    await desk.wait_ready()
    seen: list[dict[str, Any]] = []
    async with open_ours(names):
        await pika.get("method", name="queue_bind", queue=replies, exchange=names.exchange, routing_key=replies)
        for service in (names.desk, names.ours):
            await pika.get(
                "publish",
                exchange=names.exchange,
                routing_key=f"{service}.add",
                body='{"args": [1, 2], "kwargs": {}}',
                reply_to=replies,
                correlation_id="7",
                content_type="application/json",
                content_encoding="utf-8",
            )
            seen += await pika.get("consume", queue=replies, count=1)

    theirs, ours = seen
    assert json.loads(ours.pop("body")) == json.loads(theirs.pop("body")) == {"result": 3, "error": None}
    unheeded = {"headers", "priority", "content_encoding"}  # kombu takes none to be UTF-8
    wanted = {key: value for key, value in theirs.pop("properties").items() if key not in unheeded}
    assert wanted.items() <= ours.pop("properties").items()
    assert ours == theirs


# --- we call Nameko -------------------------------------------------------------------------------------------------


async def test_we_call_nameko_as_a_function(desk: Peer, names: Names) -> None:
    await desk.wait_ready()
    async with open_ours(names) as service:
        remote = getattr(service.resource("driver/rpc"), names.desk)
        assert await remote.add(1, b=3) == 4
        assert await remote.echo("a", 1, sku={"x": None}) == {"args": ["a", 1], "kwargs": {"sku": {"x": None}}}


@pytest.mark.parametrize(
    ("method", "args", "kind"),
    [
        pytest.param("nothing", [], "MethodNotFound", id="unknown method"),
        pytest.param("add", [1, 2, 3], "IncorrectSignature", id="wrong signature"),
        pytest.param("fail", ["no tea"], "ValueError", id="ValueError"),
        pytest.param("unpaid", [3], "UnpaidError", id="an error that we do not know"),
        pytest.param("strange", [], "UnserializableValueError", id="a result that is no JSON"),
    ],
)
async def test_an_error_of_nameko_is_a_remote_error(
    desk: Peer, names: Names, method: str, args: list[Any], kind: str
) -> None:
    await desk.wait_ready()
    async with open_ours(names) as service:
        with pytest.raises(RemoteError) as raised:
            await service.call("rpc", f"{names.desk}.{method}", args)

    assert raised.value.kind == kind


async def test_an_error_on_the_list_is_raised_as_itself_and_no_other(desk: Peer, names: Names) -> None:
    await desk.wait_ready()
    async with open_ours(names, exceptions=["builtins:ValueError"]) as service:
        with pytest.raises(ValueError, match=r"^no tea$"):
            await service.call("rpc", f"{names.desk}.fail", ["no tea"])
        with pytest.raises(RemoteError, match="euro"):
            await service.call("rpc", f"{names.desk}.unpaid", [3])


async def test_a_service_that_nobody_runs_is_unroutable_at_once(names: Names) -> None:
    async with open_ours(names) as service:
        with pytest.raises(UnroutableError):
            await service.call("rpc", f"{names.ours}nobody.add", [1])


# --- chains of calls ------------------------------------------------------------------------------------------------


async def test_the_context_of_nameko_comes_with_the_call(client: Peer, names: Names) -> None:
    context = {"call_id_stack": ["a.b.c"], "language": "de", "user_id": None}
    async with open_ours(names):
        headers = await client.get("call", service=names.ours, method="context", context=context)

    stack = headers["nameko.call_id_stack"]
    assert stack[0] == "a.b.c"
    assert stack[1].startswith("standalone_rpc_proxy.call.")
    assert headers["nameko.language"] == "de"
    assert "nameko.user_id" not in headers


async def test_we_continue_a_chain_that_nameko_began(desk: Peer, client: Peer, names: Names) -> None:
    await desk.wait_ready()
    context = {"call_id_stack": ["a.b.c"], "language": "de"}
    async with open_ours(names):
        call = {"service": names.ours, "method": "relay", "args": [names.desk, "context"]}
        told = await client.get("call", **call, context=context)

    first, second, third, fourth = told["stack"]
    assert first == "a.b.c"
    assert second.startswith("standalone_rpc_proxy.call.")
    assert third.startswith(f"{names.ours}.relay.")
    assert fourth == told["call_id"]
    assert told["data"]["language"] == "de"


async def test_nameko_continues_a_chain_through_us(desk: Peer, names: Names) -> None:
    """Nameko calls us in a call of ours: the chain goes there and back."""
    await desk.wait_ready()
    async with open_ours(names) as service:
        told = await service.call("rpc", f"{names.desk}.relay", ["context"])

    stack = told["result"]["nameko.call_id_stack"]
    assert stack == told["stack"]
    assert stack[-1].startswith(f"{names.desk}.relay.")


# --- who declares what ----------------------------------------------------------------------------------------------


async def test_we_may_take_over_the_queue_of_a_nameko_service(
    start_peer: Callable[..., Peer], client: Peer, names: Names
) -> None:
    """Nameko declares exchange and queue first, under the name that we go by, and is gone when we come."""
    before = start_peer("nameko_service.py", "--name", names.ours, "--rpc-exchange", names.exchange)
    await before.wait_ready()
    before.end()
    async with open_ours(names):
        assert await client.get("call", service=names.ours, method="add", args=[1]) == 2


async def test_nameko_may_take_over_our_queue(start_peer: Callable[..., Peer], client: Peer, names: Names) -> None:
    async with open_ours(names):
        pass
    after = start_peer("nameko_service.py", "--name", names.ours, "--rpc-exchange", names.exchange)
    await after.wait_ready()

    assert await client.get("call", service=names.ours, method="add", args=[1]) == 2
