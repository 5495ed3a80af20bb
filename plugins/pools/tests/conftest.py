"""What the tests of this plugin share: a service whose worker is called in a pool."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from multiprocessing.resource_tracker import ensure_running
from typing import Any

import attrs
import pytest

from kernel.testing import OpenKernel

from . import _workers

CALLS = f"{_workers.__name__}:Calls"


def manifest(pool: dict[str, Any], worker: dict[str, Any] | None = None, **dispatcher: Any) -> dict[str, Any]:
    """A service whose worker is called in a pool."""
    consumer = {"plugin": "consumer", "driver": "queue", "protocol": "json", "queue": "q", "bindings": ["#"]}
    publisher = {"driver": "queue", "protocol": "json"}
    return {
        "kernel": {"name": "test"},
        "drivers": {
            "queue": {"plugin": "memory"},
            "pool": pool,
            "rpc": {"plugin": "rpc_client", **publisher},
            "publisher": publisher,
        },
        "dispatchers": {"incoming": {**consumer, **dispatcher}},
        "workers": {"calls": {"use": CALLS, "dispatcher": "incoming", "runs_in": "pool", **(worker or {})}},
    }


@attrs.frozen
class Client:
    """Asks the worker, and tells it."""

    service: Any

    async def ask(self, subject: str, payload: Any = None) -> Any:
        return await self.service.resource("driver/rpc").call(subject, payload)

    async def tell(self, subject: str, payload: Any = None) -> None:
        await self.service.resource("driver/publisher").publish(subject, payload)


OpenPool = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def open_pool(open_kernel: OpenKernel) -> OpenPool:
    @asynccontextmanager
    async def opened(
        pool: dict[str, Any],
        worker: dict[str, Any] | None = None,
        expected: Any = (),
        environ: dict[str, str] | None = None,
        **dispatcher: Any,
    ) -> AsyncGenerator[Client]:
        tables = manifest(pool, worker, **dispatcher)
        async with open_kernel(tables, expected=expected, environ=environ) as service:
            yield Client(service)

    return opened


@pytest.fixture(autouse=True, scope="session")
def resource_tracker() -> None:
    """Start the one process that Python keeps beside those that are spawned, so that no test is said to have left it."""
    ensure_running()
