"""What the tests of this plugin share: a server, and drivers on it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from kernel_postgres import Database, PostgresConfig, PostgresDriver

from kernel import Event, Secret
from kernel.testing import fake_context

from ._cluster import PASSWORD, Cluster, open_cluster, programs

OpenDatabase = Callable[..., AbstractAsyncContextManager[Database]]


@pytest.fixture(scope="session")
def cluster() -> Generator[Cluster]:
    """A server for all tests that do not stop it."""
    binaries = programs()
    if binaries is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    with tempfile.TemporaryDirectory() as folder, open_cluster(Path(folder), binaries) as opened:
        yield opened


def driver(cluster: Cluster, events: list[Event] | None = None, **config: Any) -> PostgresDriver:
    settings = {"dsn": cluster.dsn, "password": Secret(PASSWORD), **config}
    return PostgresDriver(config=PostgresConfig(**settings), context=fake_context("driver/db", events=events))


@pytest.fixture
async def open_database(cluster: Cluster) -> AsyncGenerator[OpenDatabase]:
    """Open a driver on the server of all tests; at its end no connection of it may be left."""

    @asynccontextmanager
    async def opened(events: list[Event] | None = None, **config: Any) -> AsyncGenerator[Database]:
        async with driver(cluster, events, **config).open() as database:
            yield database

    yield opened
    await none_left(cluster)


async def none_left(cluster: Cluster) -> None:
    """Wait until no connection is left at the server, which notices by itself."""
    with trio.fail_after(10):
        while await trio.to_thread.run_sync(cluster.clients):  # noqa: ASYNC110  as said
            await trio.sleep(0.01)
