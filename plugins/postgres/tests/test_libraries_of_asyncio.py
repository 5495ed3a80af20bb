"""Workers that are written for asyncio, with its libraries for PostgreSQL, beside trio."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import attrs
import pytest
import trio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from kernel import Secret, handles
from kernel.errors import RemoteError
from kernel.testing import OpenKernel

from ._cluster import PASSWORD, Cluster

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
NAME = "of-asyncio"


@attrs.frozen
class Place:
    dsn: str
    password: Secret


class Worker:
    """Makes what it needs when it is first asked, in the loop of asyncio."""

    def __init__(self, config: Place) -> None:
        self.config = config
        self.stack = AsyncExitStack()
        self.opened: Any = None

    @handles("add")
    async def add(self, numbers: list[int]) -> int:
        return int(await self.ask("{0} + {1}", numbers))

    @handles("sleep")
    async def sleep(self, seconds: float) -> None:
        await self.ask("pg_sleep({0})", [seconds])

    @handles("fail")
    async def fail(self, numbers: list[int]) -> None:
        await self.ask("{0} / 0", numbers)

    @handles("close")
    async def close(self, payload: Any) -> None:
        await self.stack.aclose()

    async def ask(self, expression: str, values: list[Any]) -> Any:
        raise NotImplementedError


class WithAsyncpg(Worker):
    async def ask(self, expression: str, values: list[Any]) -> Any:
        if self.opened is None:
            password, settings = self.config.password.reveal(), {"application_name": NAME}
            pool = asyncpg.create_pool(
                self.config.dsn, password=password, min_size=1, max_size=2, server_settings=settings
            )
            self.opened = await self.stack.enter_async_context(pool)
        places = [f"${number + 1}::float8" for number in range(len(values))]
        return await self.opened.fetchval(f"SELECT {expression.format(*places)}", *values)


class WithSqlAlchemy(Worker):
    async def ask(self, expression: str, values: list[Any]) -> Any:
        if self.opened is None:
            dsn = self.config.dsn.replace("postgresql://", "postgresql+asyncpg://")
            arguments = {"password": self.config.password.reveal(), "server_settings": {"application_name": NAME}}
            self.opened = create_async_engine(dsn, connect_args=arguments, pool_size=2, max_overflow=0)
            self.stack.push_async_callback(self.opened.dispose)
        places = [f"CAST(:v{number} AS float8)" for number in range(len(values))]
        named = {f"v{number}": float(value) for number, value in enumerate(values)}
        async with self.opened.connect() as connection:
            return (await connection.execute(text(f"SELECT {expression.format(*places)}"), named)).scalar()


def manifest(cluster: Cluster, worker: type[Worker]) -> dict[str, Any]:
    consumer = {"plugin": "consumer", "driver": "queue", "protocol": "json", "queue": "q", "bindings": ["#"]}
    return {
        "kernel": {"name": "test"},
        "drivers": {
            "queue": {"plugin": "memory"},
            "rpc": {"plugin": "rpc_client", "driver": "queue", "protocol": "json"},
            "aio": {"plugin": "asyncio"},
        },
        "dispatchers": {"incoming": {**consumer, "concurrency": 4}},
        "workers": {
            "w": {
                "use": f"{__name__}:{worker.__name__}",
                "dispatcher": "incoming",
                "runs_in": "aio",
                "config": {"dsn": cluster.dsn, "password": Secret(PASSWORD)},
            }
        },
    }


@pytest.mark.parametrize("worker", [WithAsyncpg, WithSqlAlchemy])
async def test_a_worker_of_asyncio_asks_postgresql(
    cluster: Cluster, open_kernel: OpenKernel, worker: type[Worker]
) -> None:
    async with open_kernel(manifest(cluster, worker), expected=Exception) as service:
        answers = [await service.call("rpc", "add", [number, 1]) for number in range(20)]
        with pytest.raises(RemoteError, match="division by zero"):
            await service.call("rpc", "fail", [1])
        with trio.move_on_after(0.5) as scope:  # more than there are connections
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(service.call, "rpc", "sleep", 60)
        again = await service.call("rpc", "add", [1, 2])
        connections = cluster.clients(NAME)
        await service.call("rpc", "close", None)

    assert answers == [number + 1 for number in range(20)]
    assert (scope.cancelled_caught, again) == (True, 3)
    assert 1 <= connections <= 3
    await gone(cluster)


async def gone(cluster: Cluster) -> None:
    with trio.fail_after(10):
        while cluster.clients(NAME):  # noqa: ASYNC110  the server notices by itself
            await trio.sleep(0.01)
