"""A call through a contract goes over every protocol, however its arguments are given."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import pytest
import trio

from kernel import Listening, answers, contract
from kernel._manifest.registry import Registry, discover
from kernel.errors import ContractError, EncodeError
from kernel.testing import open_kernel

Opened = Callable[[str], AbstractAsyncContextManager[tuple["Stock", Any]]]


@contract("stock")
class Stock(Protocol):
    async def take(self, sku: str, amount: int = 1, *, by: str = "nobody") -> list[object]: ...
    async def sum(self, first: int, /, *, times: int = 1) -> int: ...


class Shelf:
    @answers("stock.take")
    async def take(self, sku: str, amount: int = 1, *, by: str = "nobody") -> list[object]:
        return [sku, amount, by]

    @answers("stock.sum")
    async def sum(self, first: int, /, *, times: int = 1) -> int:
        return first * times


class Buyer:
    """Has the contract; the test calls through it."""

    def __init__(self, stock: Stock) -> None:
        self.stock = stock

    async def run(self) -> None:
        await trio.sleep_forever()


def opened(driver: dict[str, Any], **tables: Any) -> AbstractAsyncContextManager[Any]:
    workers = {"shelf": Shelf, "buyer": Buyer}
    plugins = (*discover().plugins, *Registry.of({"workers": workers}).plugins)
    used = {"buyer": {"use": "buyer"}} if driver else {}
    if "dispatchers" in tables:
        used["shelf"] = {"use": "shelf", "dispatcher": next(iter(tables["dispatchers"]))}
    stock = {"stock": {**driver, "contract": f"{__name__}:Stock"}} if driver else {}
    drivers = {**tables.pop("drivers", {}), **stock}
    return open_kernel(
        {"kernel": {"name": "wires"}, "drivers": drivers, "workers": used, **tables}, registry=Registry(plugins)
    )


@asynccontextmanager
async def over_zmq(protocol: str) -> AsyncGenerator[tuple[Stock, Any]]:
    folder = tempfile.mkdtemp(prefix="kz")
    desk = {"plugin": "zmq_reply", "bind": [f"ipc://{folder}/s"], "protocol": protocol}
    driver = {"plugin": "zmq_request", "connect": [f"ipc://{folder}/s"], "protocol": protocol}
    try:
        async with opened(driver, dispatchers={"desk": desk}) as service:
            yield service.resource("worker/buyer").stock, service.resource("driver/stock")
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def over_websockets(protocol: str) -> AsyncGenerator[tuple[Stock, Any]]:
    async with opened({}, dispatchers={"desk": {"plugin": "websocket", "port": 0, "protocol": protocol}}) as desk:
        url = (await desk.wait_event(Listening)).address
        async with opened({"plugin": "websocket_client", "url": url, "protocol": protocol}) as service:
            yield service.resource("worker/buyer").stock, service.resource("driver/stock")


@asynccontextmanager
async def over_memory(protocol: str) -> AsyncGenerator[tuple[Stock, Any]]:
    used = {"driver": "queue", "protocol": protocol}
    desk = {"plugin": "consumer", "queue": "stock", "bindings": ["stock.*"], **used}
    queue = {"queue": {"plugin": "memory"}}
    async with opened({"plugin": "rpc_client", **used}, drivers=queue, dispatchers={"desk": desk}) as service:
        yield service.resource("worker/buyer").stock, service.resource("driver/stock")


WIRES = [
    pytest.param(over_zmq, "service_framework", id="zmq-service_framework"),
    pytest.param(over_zmq, "msgpack", id="zmq-msgpack"),
    pytest.param(over_websockets, "jsonrpc", id="websocket-jsonrpc"),
    pytest.param(over_memory, "service_framework", id="memory-service_framework"),
    pytest.param(over_memory, "json", id="memory-json"),
]


@pytest.mark.parametrize(("wire", "protocol"), WIRES)
async def test_a_call_may_give_its_arguments_in_every_way(wire: Opened, protocol: str) -> None:
    async with wire(protocol) as (stock, _):
        assert await stock.take("tea") == ["tea", 1, "nobody"]
        assert await stock.take("tea", 2, by="ada") == ["tea", 2, "ada"]
        assert await stock.take("tea", by="ada", amount=3) == ["tea", 3, "ada"]
        assert await stock.take(amount=3, sku="oil") == ["oil", 3, "nobody"]
        with pytest.raises(ContractError):
            await stock.take("tea", sku="oil")  # type: ignore[misc]
        with pytest.raises(ContractError):
            await stock.take("tea", 1, "ada")  # type: ignore[misc]


@pytest.mark.parametrize(("wire", "protocol"), [(over_websockets, "jsonrpc"), (over_memory, "service_framework")])
async def test_what_has_no_name_is_refused_before_it_is_sent(wire: Opened, protocol: str) -> None:
    async with wire(protocol) as (stock, client):
        with pytest.raises(EncodeError, match="give all of them by name"):
            await stock.sum(2, times=3)
        with pytest.raises(EncodeError, match="give all of them by name"):
            await client.stock.take("tea", by="ada")
