"""Leases in PostgreSQL."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from kernel.errors import UnavailableError
from kernel.testing import check_leasing

from ._cluster import Cluster
from .conftest import OpenDatabase


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_postgres_keeps_every_promise_of_a_place_of_leases(
    cluster: Cluster, open_database: OpenDatabase, isolation: str
) -> None:
    cluster.query("DROP TABLE IF EXISTS kernel_lease")
    cluster.query(f"ALTER ROLE tester SET default_transaction_isolation = '{isolation}'")
    try:
        await check_leasing(partial(open_database, pool_max=4))
    finally:
        cluster.query("ALTER ROLE tester RESET default_transaction_isolation")


async def test_processes_that_make_the_table_at_once_make_one(cluster: Cluster, open_database: OpenDatabase) -> None:
    cluster.query("DROP TABLE IF EXISTS kernel_lease")
    async with open_database() as database, trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(database.lease(f"table.{number}").read)


async def test_a_database_that_may_only_be_read_says_so(cluster: Cluster, open_database: OpenDatabase) -> None:
    reading = f"{cluster.dsn}?options=-c%20default_transaction_read_only%3Don"
    async with open_database() as database, open_database(dsn=reading) as only_reading:
        await database.lease("only.read").write("text", after=0)

        with pytest.raises(UnavailableError, match=r"cannot be written: .*read-only"):
            await only_reading.lease("only.read").write("text", after=1)
