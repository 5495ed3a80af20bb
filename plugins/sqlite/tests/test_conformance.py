from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kernel_sqlite import SqliteConfig, SqliteDriver

from kernel.abc import Broker
from kernel.testing import check_broker, check_leasing, fake_context

from .conftest import OpenSqlite


@pytest.mark.slow
async def test_sqlite_keeps_every_promise_of_a_broker(tmp_path: Path) -> None:
    @asynccontextmanager
    async def open_sqlite() -> AsyncGenerator[Broker]:
        config = SqliteConfig(path=str(tmp_path / "queues.db"))
        async with SqliteDriver(config=config, context=fake_context("driver/sqlite")).open() as broker:
            yield broker

    await check_broker(open_sqlite, capabilities=SqliteDriver.capabilities)


@pytest.mark.slow
async def test_sqlite_keeps_every_promise_of_a_place_of_leases(open_sqlite: OpenSqlite) -> None:
    await check_leasing(open_sqlite)
