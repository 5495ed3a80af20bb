"""Connections: cancelled, exhausted, lost, old, refused; and none left over."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from typing import Any

import attrs
import psycopg
import pytest
import trio
from kernel_postgres import PoolMeasured, PostgresConfig, PostgresDriver
from kernel_postgres._config import problems

from kernel import Event, Secret, State, StateChanged, Usage
from kernel.errors import StartupError, UnavailableError
from kernel.testing import fake_context

from ._cluster import PASSWORD, Cluster
from .conftest import OpenDatabase, driver


@pytest.mark.slow
async def test_200_random_cancellations_leave_every_answer_with_its_question(
    open_database: OpenDatabase, cluster: Cluster
) -> None:
    chance = random.Random(1)
    async with open_database(pool_min=2, pool_max=2) as database:

        async def ask(task: int) -> None:
            for number in range(100):
                with trio.move_on_after(chance.choice([0.0, 0.0002, 0.0005, 0.001, 0.002])):
                    await database.execute("SELECT %s::int, pg_sleep(0.0005)", [-1])
                assert await database.execute("SELECT %s::int, %s::int", [task, number]) == [(task, number)]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 1)
            nursery.start_soon(ask, 2)
        with trio.fail_after(10):
            while cluster.clients() > 2:  # noqa: ASYNC110  as below: that of a connection which was replaced takes a moment
                await trio.sleep(0.05)


def running(cluster: Cluster, text: str) -> int:
    found = cluster.query(
        "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE %s",
        f"%{text}%",
    )
    return len(found)


async def test_a_cancelled_statement_is_gone_from_the_server_and_the_connection_is_not(
    open_database: OpenDatabase, cluster: Cluster
) -> None:
    async with open_database(pool_max=1) as database:
        with trio.move_on_after(0.2) as scope:
            await database.execute("SELECT pg_sleep(60)")
        left = running(cluster, "pg_sleep(60)")
        assert await database.execute("SELECT 1") == [(1,)]

        assert (scope.cancelled_caught, left, database.measured().opened) == (True, 0, 1)


async def test_a_connection_whose_statement_does_not_end_is_replaced(open_database: OpenDatabase) -> None:
    async with open_database(pool_max=1, cancel_timeout=0.2) as database:
        await database.execute(STUBBORN)
        with trio.move_on_after(0.1):
            await database.execute("SELECT stubborn(2)")
        assert await database.execute("SELECT 1") == [(1,)]

        assert database.measured().opened == 2


STUBBORN = """
CREATE OR REPLACE FUNCTION stubborn(seconds float) RETURNS void LANGUAGE plpgsql AS $$
DECLARE until timestamptz := clock_timestamp() + make_interval(secs => seconds);
BEGIN
    WHILE clock_timestamp() < until LOOP
        BEGIN
            PERFORM pg_sleep(0.05);
        EXCEPTION WHEN query_canceled THEN
            NULL;
        END;
    END LOOP;
END $$
"""


async def test_an_exhausted_pool_waits_in_turn_and_times_out(open_database: OpenDatabase) -> None:
    order: list[int] = []
    async with open_database(pool_max=1, acquire_timeout=0.2) as database:

        async def take(number: int) -> None:
            async with database.connection():
                order.append(number)

        async with trio.open_nursery() as nursery, database.connection():
            with pytest.raises(UnavailableError, match="pool_max = 1"):
                await database.execute("SELECT 1")
            with trio.move_on_after(0.02) as scope:
                await database.execute("SELECT 1")
            for number in range(3):
                nursery.start_soon(take, number)
                await trio.testing.wait_all_tasks_blocked()
            assert database.measured().waiting == 3

        assert scope.cancelled_caught
        assert order == [0, 1, 2]
        assert database.measured().opened == 1


async def test_a_server_that_restarts_is_waited_for(cluster: Cluster) -> None:
    events: list[Event] = []
    async with driver(cluster, events, pool_min=3, pool_max=3).open() as database:
        cluster.stop()
        try:
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(database.execute, "SELECT 1")
                    await trio.sleep(0.1)
                    await trio.to_thread.run_sync(cluster.start)
        finally:
            if not cluster.answers():
                cluster.start()
        states = [event.new for event in events if isinstance(event, StateChanged)]

        assert states == [State.DEGRADED, State.READY]


async def test_what_libpq_says_of_a_broken_connection_is_one_line_and_what_the_server_says_is_kept(
    cluster: Cluster,
) -> None:
    async with driver(cluster, sslmode="disable").open() as database:
        with pytest.raises(psycopg.errors.SyntaxError, match=r"\nLINE 1: SELEC"):
            await database.execute("SELEC 1")
        async with database.connection() as connection:
            with socket.socket(fileno=os.dup(connection.pgconn.socket)) as cut:
                cut.shutdown(socket.SHUT_RDWR)
            with pytest.raises(psycopg.OperationalError, match="closed the connection unexpectedly") as broken:
                await connection.execute("SELECT 1")

    assert is_on_one_line(broken.value)


async def test_a_server_that_is_away_is_an_error_in_time(cluster: Cluster) -> None:
    async with driver(cluster, acquire_timeout=0.3).open() as database:
        cluster.stop()
        try:
            with trio.fail_after(10), pytest.raises(UnavailableError, match="Connection refused") as refused:
                await database.execute("SELECT 1")
            with pytest.raises(UnavailableError) as deaf:
                async with database.listen("news"):
                    pytest.fail("it listens")
        finally:
            cluster.start()

    for error in (refused, deaf):
        assert is_on_one_line(error.value)
        assert is_on_one_line(error.value.__cause__)


def is_on_one_line(error: BaseException | None) -> bool:
    return error is not None and str(error) == " ".join(str(error).split())


async def test_a_connection_that_breaks_in_use_is_psycopgs_error_and_replaced(open_database: OpenDatabase) -> None:
    async with open_database(pool_max=1) as database:
        with pytest.raises(psycopg.OperationalError):
            await database.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        assert await database.execute("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("config", "opened"), [({"max_queries": 2}, 3), ({"max_lifetime": 0.0001}, 6), ({"max_queries": 0}, 1)]
)
async def test_connections_are_replaced_when_they_are_used_up(
    open_database: OpenDatabase, config: Any, opened: int
) -> None:
    async with open_database(pool_max=1, pool_min=0, **config) as database:
        for _ in range(5 if opened < 6 else 6):
            await database.execute("SELECT 1")

        assert database.measured().opened == opened


async def test_idle_connections_go_down_to_the_minimum(open_database: OpenDatabase, cluster: Cluster) -> None:
    async with open_database(pool_min=1, pool_max=5, max_inactive_connection_lifetime=0.1) as database:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(database.execute, "SELECT pg_sleep(0.05)")
        assert cluster.clients() > 1
        with trio.fail_after(5):
            while cluster.clients() > 1:  # noqa: ASYNC110  the server notices by itself
                await trio.sleep(0.01)

        assert database.measured().size == 1


async def test_what_is_left_open_on_a_connection_is_undone(open_database: OpenDatabase) -> None:
    async with open_database(pool_max=1) as database:
        async with database.connection() as connection:
            await connection.execute("BEGIN")
            await connection.execute("CREATE TABLE left_open (id int)")
        with pytest.raises(psycopg.errors.UndefinedTable):
            await database.execute("SELECT * FROM left_open")

        assert database.measured().opened == 1


async def test_how_the_pool_is_used_is_told(open_database: OpenDatabase) -> None:
    events: list[Event] = []
    async with open_database(events, statistics_interval=0.05) as database:
        await database.execute("SELECT 1")
        with trio.fail_after(5):
            while not any(isinstance(event, PoolMeasured) for event in events):  # noqa: ASYNC110
                await trio.sleep(0.01)

        (told, *_) = [event for event in events if isinstance(event, PoolMeasured)]
        assert (told.size, told.idle, told.taken, told.opened) == (1, 1, 1, 1)


# --- who is let in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"password": Secret("wrong horse")}, "password authentication failed"),
        ({"dsn": "postgresql://tester@127.0.0.1:{port}/nowhere"}, 'database "nowhere" does not exist'),
    ],
)
async def test_who_is_not_let_in_is_not_started_again(cluster: Cluster, config: Any, told: str) -> None:
    config = {name: value.format(port=cluster.port) if name == "dsn" else value for name, value in config.items()}
    with pytest.raises(StartupError, match=told) as refused:
        async with driver(cluster, **config).open():
            pytest.fail("it opened")

    assert "horse" not in str(refused.value)


async def test_a_server_that_is_away_at_the_start_is_tried_again() -> None:
    config = PostgresConfig(dsn="postgresql://127.0.0.1:1/x")
    with pytest.raises(UnavailableError):
        async with PostgresDriver(config=config, context=fake_context("driver/db")).open():
            pytest.fail("it opened")


async def test_tls_is_verified_against_the_authority_and_the_name(cluster: Cluster) -> None:
    named, nameless = (f"postgresql://tester@{host}:{cluster.port}/postgres" for host in ("localhost", "127.0.0.1"))
    async with driver(cluster, dsn=named, sslrootcert=cluster.ca).open() as database:
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert await database.execute(query) == [(True,)]
        with trio.move_on_after(0.2):
            await database.execute("SELECT pg_sleep(60)")
        assert running(cluster, "pg_sleep(60)") == 0
    with pytest.raises(StartupError, match="does not match"):
        async with driver(cluster, dsn=nameless, sslrootcert=cluster.ca).open():
            pytest.fail("it opened")


# --- the table -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dsn", ["postgresql://x:y:z@[", "hoost=x", "host='"])
def test_a_dsn_that_libpq_cannot_read_is_refused(dsn: str) -> None:
    with pytest.raises(ValueError, match="libpq cannot read it"):
        PostgresConfig(dsn=dsn)


@pytest.mark.parametrize("password", ["a@cleartext", "@cleartext", "cle@r@text", "@"])
def test_a_password_with_an_at_is_refused_and_not_quoted(password: str) -> None:
    """libpq ends it at the first one, and would say of the rest that it is a host that cannot be found."""
    with pytest.raises(ValueError, match="has an @ in its user or password: write it as %40") as refused:
        PostgresConfig(dsn=f"postgresql://app:{password}@127.0.0.1/shop")

    assert "clear" not in str(refused.value)
    PostgresConfig(dsn=f"postgresql://app:{password.replace('@', '%40')}@127.0.0.1/shop")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"pool_min": 11}, "at most `pool_max` = 10"),
        ({"sslkey": "key"}, "`sslcert`, which is missing"),
        ({"sslmode": "require", "sslrootcert": "ca"}, "does not look at `sslrootcert`"),
    ],
)
def test_what_does_not_fit_together_is_a_problem(config: Any, problem: str) -> None:
    assert problem in "".join(problems(PostgresConfig(dsn="", **config)))


async def test_whoever_looks_sees_how_the_pool_is_used(cluster: Cluster) -> None:
    asked: list[Callable[[], Usage]] = []
    context = attrs.evolve(fake_context("driver/db"), report_usage=asked.append)
    config = PostgresConfig(dsn=cluster.dsn, password=Secret(PASSWORD), pool_min=2, pool_max=2)
    async with PostgresDriver(config=config, context=context).open() as database:
        [look] = asked
        seen = [look()]
        async with trio.open_nursery() as nursery, database.connection(), database.connection():
            nursery.start_soon(database.execute, "SELECT 1")
            await trio.testing.wait_all_tasks_blocked()
            seen.append(look())
        seen.append(look())

    assert seen == [
        Usage(used=0, idle=2, limit=2),
        Usage(used=2, waiting=1, limit=2),
        Usage(used=0, idle=2, limit=2),
    ]
