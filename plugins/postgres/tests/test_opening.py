"""Connections that are opened: so many at once, off the event loop, and with the reason where there can be no more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from functools import partial

import psycopg
import pytest
import trio
from kernel_postgres import Database
from kernel_postgres._waiting import connect_with
from psycopg import generators, pq
from psycopg.conninfo import make_conninfo
from psycopg.waiting import Ready, Wait

from kernel.errors import UnavailableError

from ._cluster import PASSWORD, Cluster
from .conftest import OpenDatabase, driver

LIMIT = 3


def stepped(
    generator: Generator[tuple[int, Wait], Ready | int, pq.abc.PGconn], step: Callable[[], object]
) -> Generator[tuple[int, Wait], Ready | int, pq.abc.PGconn]:
    """Do what another generator does, and call a function at each step."""
    step()
    wanted = next(generator)
    while True:
        ready = yield wanted
        step()
        try:
            wanted = generator.send(ready)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


async def test_what_connecting_computes_it_computes_in_no_turn_of_the_loop(cluster: Cluster) -> None:
    threads: list[int] = []
    conninfo = make_conninfo(cluster.dsn, password=PASSWORD)
    opening = stepped(generators.connect(conninfo), lambda: threads.append(threading.get_ident()))
    (await connect_with(opening, steps=trio.CapacityLimiter(1))).finish()

    assert len(threads) > 2
    assert threading.get_ident() not in threads


async def test_who_is_not_let_in_is_told_why_by_the_thread(cluster: Cluster) -> None:
    opening = generators.connect(make_conninfo(cluster.dsn, password="wrong"))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await connect_with(opening, steps=trio.CapacityLimiter(1))


@pytest.mark.slow
async def test_eight_are_opened_at_once_and_the_others_wait_for_their_turn(cluster: Cluster) -> None:
    """The server accepts, and says nothing."""
    accepted: list[trio.SocketStream] = []
    told: list[str] = []

    async def serve(stream: trio.SocketStream) -> None:
        accepted.append(stream)
        await trio.sleep_forever()

    async def ask(database: Database) -> None:
        await trio.lowlevel.checkpoint()
        try:
            await database.execute("SELECT 1")
        except UnavailableError as error:
            told.append(str(error))

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        dsn = f"postgresql://tester@127.0.0.1:{listener.socket.getsockname()[1]}/x?sslmode=disable"
        settings = {"pool_min": 0, "pool_max": 30, "acquire_timeout": 0.4, "connect_timeout": 0.8}
        async with driver(cluster, dsn=dsn, **settings).open() as database, trio.open_nursery() as asking:
            for _ in range(30):
                asking.start_soon(ask, database)
        nursery.cancel_scope.cancel()

    assert len(accepted) == 8
    assert sorted(("0 of pool_max = 30 are open" in text, "connect_timeout = 0.8" in text) for text in told) == [
        *[(False, True)] * 8,
        *[(True, False)] * 22,
    ]


@pytest.fixture
def few(cluster: Cluster) -> str:
    """The address of a user for whom the server has few connections."""
    cluster.query("DROP ROLE IF EXISTS few")
    cluster.query(f"CREATE ROLE few LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT {LIMIT}")
    return cluster.dsn.replace("tester@", "few@")


@pytest.mark.slow
async def test_what_the_server_said_is_told_to_who_waits_for_a_connection(
    open_database: OpenDatabase, few: str
) -> None:
    told: list[str] = []

    async def ask(database: Database) -> None:
        with pytest.raises(UnavailableError) as late:
            await database.execute("SELECT 1")
        told.append(str(late.value))

    async with open_database(dsn=few, pool_max=LIMIT + 1, acquire_timeout=0.5) as database:
        async with (
            database.connection(),
            database.connection(),
            database.connection(),
            trio.open_nursery() as nursery,
        ):
            for _ in range(4):  # one has a place and may not open; the others wait for a place
                nursery.start_soon(ask, database)
        assert await database.execute("SELECT 1") == [(1,)]

    assert len(told) == 4
    assert all(f"{LIMIT} of pool_max = {LIMIT + 1} are open" in text for text in told)
    assert all('too many connections for role "few"' in text for text in told)


async def test_who_may_not_open_a_connection_takes_one_that_is_given_back(
    open_database: OpenDatabase, few: str
) -> None:
    async with open_database(dsn=few, pool_max=20, acquire_timeout=20.0) as database:
        with trio.fail_after(15):
            async with trio.open_nursery() as nursery:
                for _ in range(30):
                    nursery.start_soon(database.execute, "SELECT pg_sleep(0.01)")

        assert database.measured().opened == LIMIT
        assert database.measured().idle == LIMIT


@pytest.mark.slow
async def test_who_listens_waits_no_longer_than_for_any_other_connection(cluster: Cluster) -> None:
    async def say_nothing(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
        dsn = f"postgresql://tester@127.0.0.1:{listener.socket.getsockname()[1]}/x?sslmode=disable"
        async with driver(cluster, dsn=dsn, pool_min=0, connect_timeout=0.3).open() as database:
            with pytest.raises(UnavailableError, match=r"connect_timeout = 0\.3 s"):
                async with database.listen("news"):
                    pytest.fail("it listens")
        nursery.cancel_scope.cancel()
