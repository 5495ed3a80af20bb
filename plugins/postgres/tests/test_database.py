"""Statements, transactions and notifications."""

from __future__ import annotations

from typing import Any

import attrs
import psycopg
import pytest
import trio
from kernel_postgres import Database

from kernel.errors import UnavailableError

from ._cluster import Cluster
from .conftest import OpenDatabase


@attrs.frozen
class Order:
    id: int
    sku: str


@pytest.fixture
def table(cluster: Cluster) -> str:
    cluster.query("DROP TABLE IF EXISTS made")
    cluster.query("CREATE TABLE made (id int, sku text)")
    return "made"


async def ids(database: Database) -> list[Any]:
    return [id_ for (id_,) in await database.execute("SELECT id FROM made ORDER BY id")]


async def test_rows_come_as_tuples_and_as_objects(open_database: OpenDatabase, table: str) -> None:
    async with open_database() as database:
        assert await database.execute("INSERT INTO made VALUES (%s, %s), (2, 'pot')", [1, "tea"]) == []
        assert await database.execute("SELECT * FROM made WHERE sku = %(sku)s", {"sku": "pot"}) == [(2, "pot")]
        assert await database.fetch("SELECT * FROM made ORDER BY id", into=Order) == [Order(1, "tea"), Order(2, "pot")]
        async with database.transaction() as transaction:
            assert await transaction.fetch("SELECT * FROM made WHERE id = 1", into=Order) == [Order(1, "tea")]


async def test_a_refused_statement_is_psycopgs_error_and_the_connection_goes_on(open_database: OpenDatabase) -> None:
    async with open_database(pool_max=1) as database:
        for _ in range(3):
            with pytest.raises(psycopg.errors.UndefinedTable):
                await database.execute("SELECT * FROM nowhere")
        assert await database.execute("SELECT 1") == [(1,)]

        assert database.measured().opened == 1


async def insert(database: Database, error: Exception | None = None) -> None:
    async with database.transaction() as transaction:
        await transaction.execute("INSERT INTO made VALUES (1)")
        if error is not None:
            raise error


async def test_a_transaction_is_committed_or_undone(open_database: OpenDatabase, table: str) -> None:
    async with open_database() as database:
        with pytest.raises(ZeroDivisionError):
            await insert(database, ZeroDivisionError())
        assert await ids(database) == []
        await insert(database)

        assert await ids(database) == [1]


async def test_a_cancelled_transaction_is_undone_on_the_same_connection(
    open_database: OpenDatabase, table: str
) -> None:
    async with open_database(pool_max=1) as database:
        with trio.move_on_after(0.05):
            async with database.transaction() as transaction:
                await transaction.execute("INSERT INTO made VALUES (1)")
                await trio.sleep_forever()
        assert await ids(database) == []

        assert database.measured().opened == 1


async def test_a_cancelled_savepoint_is_undone_and_the_transaction_goes_on(
    open_database: OpenDatabase, table: str
) -> None:
    """psycopg would have to wait for that in a cancelled scope, and leave half of it in the transaction."""
    async with open_database() as database:
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO made VALUES (1)")
            with trio.move_on_after(0.05):
                async with transaction.connection.transaction():
                    await transaction.execute("INSERT INTO made VALUES (2)")
                    await trio.sleep_forever()
            with pytest.raises(psycopg.errors.UndefinedTable):
                async with transaction.connection.transaction():
                    await transaction.execute("INSERT INTO made SELECT 3 FROM nowhere")
            async with transaction.connection.transaction():
                await transaction.execute("INSERT INTO made VALUES (4)")

        assert await ids(database) == [1, 4]


async def test_isolation_and_reading_only_are_what_was_asked_for(open_database: OpenDatabase) -> None:
    async with open_database() as database, database.transaction(isolation="serializable", read_only=True) as one:
        assert await one.execute("SHOW transaction_isolation") == [("serializable",)]
        assert await one.execute("SHOW transaction_read_only") == [("on",)]


async def test_using_the_database_beside_its_transaction_is_an_error_and_no_deadlock(
    open_database: OpenDatabase,
) -> None:
    async with open_database(pool_max=1) as database:
        async with database.transaction():
            with pytest.raises(RuntimeError, match="use the transaction"):
                await database.execute("SELECT 1")
            with pytest.raises(RuntimeError, match="use the transaction"):
                async with database.transaction():
                    pytest.fail("it began")

        assert await database.execute("SELECT 1") == [(1,)]


async def test_a_transaction_that_is_over_takes_nothing_more(open_database: OpenDatabase) -> None:
    async with open_database() as database:
        async with database.transaction() as transaction:
            pass
        with pytest.raises(UnavailableError, match="over"):
            await transaction.execute("SELECT 1")


async def test_what_the_server_refuses_at_the_commit_is_psycopgs_error(open_database: OpenDatabase, table: str) -> None:
    async with open_database() as database:
        await database.execute("ALTER TABLE made ADD CONSTRAINT one UNIQUE (id) DEFERRABLE INITIALLY DEFERRED")
        with pytest.raises(psycopg.errors.UniqueViolation):
            async with database.transaction() as transaction:
                await transaction.execute("INSERT INTO made VALUES (1), (1)")

        assert await ids(database) == []


async def test_copy_pipeline_and_cursors_of_the_server(open_database: OpenDatabase, table: str) -> None:
    async with open_database() as database, database.connection() as connection:
        async with connection.cursor() as cursor, cursor.copy("COPY made FROM STDIN") as copy:
            for number in range(1000):
                await copy.write_row((number, "x" * 100))
        async with connection.pipeline():
            one = await connection.execute("SELECT 1")
            two = await connection.execute("SELECT count(*) FROM made")
        assert [await one.fetchone(), await two.fetchone()] == [(1,), (1000,)]
        async with connection.transaction(), connection.cursor("server") as cursor:
            await cursor.execute("SELECT id FROM made ORDER BY id")
            assert sum([id_ async for (id_,) in cursor]) == 499_500


# --- notifications -----------------------------------------------------------------------------------------------


async def test_what_is_notified_is_received_in_order_and_by_channel(open_database: OpenDatabase) -> None:
    async with open_database() as database, database.listen("one", "T wo") as notifications:
        await database.execute("NOTIFY one, 'a'")
        async with database.transaction() as transaction:
            for number in range(3):
                await transaction.execute("SELECT pg_notify('T wo', %s)", [str(number)])
        with trio.fail_after(5):
            got = [await anext(notifications) for _ in range(4)]

        assert [(one.channel, one.payload) for one in got] == [("one", "a"), *(("T wo", str(n)) for n in range(3))]


async def test_a_cancelled_wait_for_a_notification_loses_none(open_database: OpenDatabase) -> None:
    async with open_database() as database, database.listen("one") as notifications:
        got: list[str] = []
        for number in range(20):
            with trio.move_on_after(0.001 * (number % 4)):
                got.append((await anext(notifications)).payload)
            await database.execute("SELECT pg_notify('one', %s)", [str(number)])
        with trio.fail_after(5):
            while len(got) < 20:
                got.append((await anext(notifications)).payload)

        assert got == [str(number) for number in range(20)]


async def test_who_listens_is_told_when_the_connection_breaks(open_database: OpenDatabase) -> None:
    async with open_database() as database, database.listen("one") as notifications:
        await database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'")
        with trio.fail_after(5), pytest.raises(UnavailableError, match="broke that listened"):
            await anext(notifications)
