"""What the tests of this plugin share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kernel_sqlite import SqliteBroker, SqliteConfig, SqliteDriver

from kernel import Event
from kernel.testing import fake_context

OpenSqlite = Callable[..., AbstractAsyncContextManager[SqliteBroker]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queues.db"


@pytest.fixture
def open_sqlite(path: Path) -> OpenSqlite:
    """Open a broker on the file of this test; any number of them at a time."""

    @asynccontextmanager
    async def opened(events: list[Event] | None = None, **config: Any) -> AsyncGenerator[SqliteBroker]:
        settings = SqliteConfig(**{"path": str(path), **config})
        async with SqliteDriver(config=settings, context=fake_context("driver/queue", events=events)).open() as broker:
            yield broker

    return opened
