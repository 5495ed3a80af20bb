"""What the tests of this plugin share: a server, and drivers on it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import coredis
import pytest
import trio
from kernel_redis import RedisConfig, RedisDriver

from kernel import Event, Secret
from kernel.testing import fake_context

from ._server import PASSWORD, Server, open_server, program

OpenRedis = Callable[..., AbstractAsyncContextManager["coredis.Redis[str]"]]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    found = program()
    if found is None:
        pytest.skip("needs Redis: apt-get install redis-server")
    with open_server(tmp_path_factory.mktemp("redis"), found) as opened:
        yield opened


def driver(server: Server, events: list[Event] | None = None, **config: Any) -> RedisDriver:
    settings = {"dsn": server.dsn, "password": Secret(PASSWORD), **config}
    return RedisDriver(config=RedisConfig(**settings), context=fake_context("driver/redis", events=events))


@pytest.fixture
async def open_redis(server: Server) -> AsyncGenerator[OpenRedis]:
    """Open a driver on the server of all tests; at its end no connection of it may be left."""

    @asynccontextmanager
    async def opened(events: list[Event] | None = None, **config: Any) -> AsyncGenerator[Any]:
        async with driver(server, events, **config).open() as client:
            yield client

    yield opened
    await none_left(server)


async def none_left(server: Server) -> None:
    """Wait until no connection is left at the server, which notices by itself."""
    with trio.fail_after(10):
        while server.clients():  # noqa: ASYNC110  as said
            await trio.sleep(0.01)
