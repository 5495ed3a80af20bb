"""The promises of `kernel.abc.Driver`."""

from __future__ import annotations

import pytest
from kernel_postgres import Database

from kernel.testing import check_driver

from ._cluster import Cluster
from .conftest import driver


async def use(database: Database) -> None:
    assert await database.execute("SELECT 1") == [(1,)]


@pytest.mark.slow
async def test_it_keeps_the_promises_of_a_driver(cluster: Cluster) -> None:
    await check_driver(lambda: driver(cluster, outbox=True), use=use)
