"""Calls made like those of functions, and what they inherit: a whole service on the broker in memory."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
from kernel_json import JsonProtocol
from kernel_messaging import Publisher, RpcClient
from typing_extensions import override

from kernel import Arguments, Envelope, answers, current_delivery, handles
from kernel._manifest.registry import Registry, discover
from kernel.abc import Protocol, RemoteFunction
from kernel.errors import RemoteError, UnroutableError
from kernel.testing import open_kernel

Scenario = Callable[[RpcClient, Publisher], Awaitable[None]]


class Chained(JsonProtocol):
    """JSON whose messages carry the ids of those that led to them."""

    @override
    def continued(self, cause: Envelope) -> Mapping[str, object]:
        return {"chain": f"{cause.headers.get('chain', '')}/{cause.subject}", "by": "protocol"}


@attrs.frozen
class Order:
    sku: str
    quantity: int = 1


class Billing:
    def __init__(self, rpc: RpcClient, events: Publisher) -> None:
        self.rpc, self.events = rpc, events

    @answers("billing.charge")
    async def charge(self, order: Order, amount: int = 1, *, note: str = "") -> list[object]:
        return [order.sku, order.quantity * amount, note]

    @answers("billing.raw._audit")
    async def audit(self, /, *args: object, **kwargs: object) -> list[object]:
        return [list(args), kwargs]

    @answers("close", "call")
    async def short(self, envelope: Envelope) -> str:
        return envelope.subject

    @handles("plain")
    async def plain(self, payload: object) -> object:
        return payload

    @answers("chain.first")
    async def first(self, by: str = "") -> object:
        await self.events.publish("chain.event", None)
        return await self.rpc.call("chain.last", Arguments(), headers={"by": by} if by else {})

    @answers("chain.last")
    async def last(self, envelope: Envelope) -> Mapping[str, object]:
        return dict(envelope.headers)

    @handles("chain.event")
    async def event(self, payload: None, envelope: Envelope) -> None:
        Billing.seen = dict(envelope.headers)

    seen: Mapping[str, object] = {}


@asynccontextmanager
async def opened(protocol: str = "json") -> AsyncGenerator[tuple[RpcClient, Publisher]]:
    own: dict[str, dict[str, type[Any]]] = {"protocols": {"chained": Chained}, "workers": {"billing": Billing}}
    sender = {"driver": "queue", "protocol": protocol}
    manifest = {
        "kernel": {"name": "test"},
        "drivers": {
            "queue": {"plugin": "memory"},
            "events": {"plugin": "publisher", **sender},
            "rpc": {"plugin": "rpc_client", **sender},
        },
        "dispatchers": {"calls": {"plugin": "consumer", "queue": "calls", "bindings": ["#"], **sender}},
        "workers": {"billing": {"use": "billing", "dispatcher": "calls"}},
    }
    registry = Registry((*discover().plugins, *Registry.of(own).plugins))
    async with open_kernel(manifest, registry=registry) as service:
        rpc, events = service.resource("driver/rpc"), service.resource("driver/events")
        assert isinstance(rpc, RpcClient)
        assert isinstance(events, Publisher)
        yield rpc, events


# --- functions ----------------------------------------------------------------------------------------------------


async def test_a_remote_handler_is_called_like_a_function() -> None:
    async with opened() as (rpc, _):
        assert await rpc.billing.charge(Order("tea", 2), amount=3, note="n") == ["tea", 6, "n"]
        assert await rpc["billing.charge"]({"sku": "tea"}) == ["tea", 1, ""]
        assert await rpc.billing.raw["_audit"](1, [2], self=3, k={}) == [[1, [2]], {"self": 3, "k": {}}]


async def test_a_remote_function_is_a_value() -> None:
    async with opened() as (rpc, _):
        charge = rpc.billing.charge

        assert isinstance(charge, RemoteFunction)
        assert repr(charge) == "<remote function billing.charge>"
        assert [await charge(Order("tea")), await charge(Order("oil"))] == [["tea", 1, ""], ["oil", 1, ""]]


async def test_a_call_takes_arguments_and_headers_by_hand() -> None:
    async with opened() as (rpc, _):
        headers = {"trace": "t-1"}

        assert await rpc.call("chain.last", Arguments(), headers=headers) == headers


@pytest.mark.parametrize(
    "call",
    [Arguments((1, {"a": 2}), {"k": [3]}), Arguments((1,)), Arguments((), {"k": 1}), Arguments()],
    ids=["both", "args", "kwargs", "none"],
)
async def test_json_carries_arguments_as_args_and_kwargs(call: Arguments) -> None:
    async with opened() as (rpc, _):
        written = {"args": list(call.args), "kwargs": call.kwargs}

        assert await rpc.call("plain", call) == written
        assert await rpc.call("billing.raw._audit", call) == [written["args"], written["kwargs"]]


async def test_wrong_arguments_are_told_to_the_caller_at_once() -> None:
    async with opened() as (rpc, _):
        with pytest.raises(
            RemoteError, match=r"^ArgumentsError: amuont: is unexpected; there are: order, amount, note"
        ):
            await rpc.billing.charge(Order("tea"), amuont=3)
        with pytest.raises(RemoteError, match=r"^ArgumentsError: order.quantity: must be an integer"):
            await rpc.billing.charge({"sku": "tea", "quantity": "2"})


async def test_a_function_that_nobody_answers_is_refused_at_once() -> None:
    async with opened() as (rpc, _):
        with pytest.raises((UnroutableError, RemoteError), match="nobody"):
            await rpc.nobody.here()


# --- names ----------------------------------------------------------------------------------------------------------


async def test_names_of_the_client_are_reached_as_items() -> None:
    async with opened() as (rpc, _):
        assert inspect.ismethod(rpc.call)
        assert [await rpc["call"](), await rpc.close()] == ["call", "close"]


async def test_only_these_names_are_the_clients_own() -> None:
    own = {name for name in dir(RpcClient) if not name.startswith("_")}
    functions = {name for name in dir(RemoteFunction) if not name.startswith("_")}

    assert (own, functions) == ({"call", "in_flight", "late_replies"}, set())


@pytest.mark.parametrize("name", ["_private", "__deepcopy__", "__await__", "__iter__", "__fspath__"])
async def test_names_with_underscores_are_no_words(name: str) -> None:
    async with opened() as (rpc, _):
        for target in (rpc, rpc.billing):
            assert not hasattr(target, name)
            with pytest.raises(AttributeError, match=r'write \["'):
                getattr(target, name)


@pytest.mark.parametrize("words", [0, "", "a.", ".a", "a..b", None, b"a"])
async def test_items_are_words(words: Any) -> None:
    async with opened() as (rpc, _):
        for target in (rpc, rpc.billing):
            with pytest.raises(TypeError, match="words of a subject"):
                target[words]


async def test_a_client_is_no_sequence() -> None:
    async with opened() as (rpc, _):
        with pytest.raises(TypeError, match="words of a subject"):
            list(rpc)  # type: ignore[call-overload]


# --- what is continued ----------------------------------------------------------------------------------------------


async def test_what_is_sent_in_a_handler_continues_what_it_handles() -> None:
    async with opened("chained") as (rpc, _):
        Billing.seen = {}
        headers = await rpc.chain.first()
        await rpc.plain({})  # the queue is handled in order: the event was handled before

    assert headers == Billing.seen == {"chain": "/chain.first", "by": "protocol"}


async def test_the_callers_headers_come_first() -> None:
    async with opened("chained") as (rpc, _):
        assert await rpc.chain.first("caller") == {"chain": "/chain.first", "by": "caller"}


async def test_outside_of_handlers_nothing_is_continued() -> None:
    async with opened("chained") as (rpc, _):
        assert current_delivery() is None
        assert await rpc.chain.last() == {}


def test_a_protocol_continues_nothing_by_itself() -> None:
    protocol: Protocol = JsonProtocol()

    assert protocol.continued(Envelope(subject="x", headers={"a": 1})) == {}
