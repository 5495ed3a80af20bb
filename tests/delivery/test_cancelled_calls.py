"""Two services on one broker: what is cancelled in the one ends in the other, on every broker of one machine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from kernel_messaging import RpcClient

from kernel import Ack, DeliveryRevoked, DeliverySettled
from kernel._manifest.registry import Registry, discover
from kernel.testing import open_kernel

PATIENCE = 5.0


class Stock:
    """Takes long to answer, unless it is told not to; it remembers what it began and what was cancelled."""

    def __init__(self) -> None:
        self.began: list[object] = []
        self.cancelled: list[object] = []
        self.changed = trio.Event()

    @property
    def worker(self) -> Any:
        async def worker(payload: object) -> object:
            self._note(self.began, payload)
            if payload == "quick":
                return "done"
            try:
                await trio.sleep(60)
            except trio.Cancelled:
                self._note(self.cancelled, payload)
                raise
            return "done"

        return worker

    def _note(self, where: list[object], payload: object) -> None:
        where.append(payload)
        self.changed.set()
        self.changed = trio.Event()

    async def wait(self, where: list[object], count: int = 1) -> None:
        with trio.fail_after(PATIENCE):
            while len(where) < count:
                await self.changed.wait()


@asynccontextmanager
async def running(stock: Stock, broker: dict[str, Any]) -> AsyncGenerator[tuple[RpcClient, Any]]:
    """A service that calls itself."""
    found: list[RpcClient] = []

    class Caller:
        def __init__(self, calls: RpcClient) -> None:
            found.append(calls)

        async def run(self) -> None:
            await trio.sleep_forever()

    workers = Registry.of({"workers": {"stock": stock.worker, "caller": Caller}})
    through = {"driver": "queue", "protocol": "json"}
    manifest = {
        "kernel": {"name": "shop"},
        "drivers": {"queue": broker, "calls": {"plugin": "rpc_client", **through}},
        "dispatchers": {
            "requests": {
                "plugin": "consumer",
                "queue": "stock",
                "bindings": ["stock.*"],
                "cancellable": True,
                "concurrency": 2,
                **through,
            }
        },
        "workers": {"stock": {"use": "stock", "dispatcher": "requests"}, "caller": {"use": "caller"}},
    }
    async with open_kernel(manifest, registry=Registry((*discover().plugins, *workers.plugins))) as service:
        yield found[0], service


@pytest.fixture(params=["memory", "sqlite"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "memory":
        return {"plugin": "memory"}
    return {"plugin": "sqlite", "path": str(tmp_path / "queue.db"), "synchronous": "normal"}


def told(service: Any, kind: type[Any]) -> list[Any]:
    return [event for event in service.events if isinstance(event, kind)]


async def test_a_call_that_is_cancelled_ends_its_handler(broker: dict[str, Any]) -> None:
    stock = Stock()
    async with running(stock, broker) as (calls, service), trio.open_nursery() as nursery:
        nursery.start_soon(calls.call, "stock.take", "tea")
        await stock.wait(stock.began)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await stock.wait(stock.cancelled)
            assert await calls.call("stock.take", "quick") == "done"

    assert stock.cancelled == ["tea"]
    assert len(told(service, DeliveryRevoked)) == 1
    first, second = (event.outcome for event in told(service, DeliverySettled))
    assert first == Ack()
    assert isinstance(second, Ack)
    assert second.reply is not None


@pytest.mark.slow
async def test_what_is_cancelled_before_its_turn_is_never_begun(broker: dict[str, Any]) -> None:
    stock = Stock()
    async with running(stock, broker) as (calls, service), trio.open_nursery() as nursery:
        for name in ("tea", "milk"):
            nursery.start_soon(calls.call, "stock.take", name)
        await stock.wait(stock.began, 2)
        async with trio.open_nursery() as waiting:
            for number in range(20):
                waiting.start_soon(calls.call, "stock.take", number)
            await trio.sleep(0.1)
            waiting.cancel_scope.cancel()
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await stock.wait(stock.cancelled, 2)
            assert await calls.call("stock.take", "quick") == "done"

    assert sorted(map(str, stock.began)) == ["milk", "quick", "tea"]
    assert len(told(service, DeliveryRevoked)) == len(told(service, DeliverySettled)) - 1
