"""Outbox and inbox: what is written and what is sent are one, and an effect happens once."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
import pytest
import trio
from kernel_memory import MemoryConfig, MemoryDriver
from kernel_postgres import Database, OutboxRelay, RelayConfig

from kernel import Ack, Envelope, Event
from kernel.abc import Broker, Delivery, Queue, Subscription, Topology
from kernel.testing import fake_context

from ._cluster import Cluster
from .conftest import OpenDatabase


@pytest.fixture
def empty(cluster: Cluster) -> None:
    cluster.query("DROP TABLE IF EXISTS kernel_outbox, kernel_inbox, effect")
    cluster.query("CREATE TABLE effect (id text)")


@asynccontextmanager
async def open_broker(*queues: str) -> AsyncGenerator[Broker]:
    async with MemoryDriver(config=MemoryConfig(), context=fake_context("driver/queue")).open() as broker:
        await broker.declare(Topology(queues=[Queue(name=name) for name in queues]))
        yield broker


def relay(database: Database, broker: Broker, events: list[Event] | None = None, **config: Any) -> OutboxRelay:
    settings = RelayConfig(**{"poll_interval": 0.01, "backoff_initial": 0.01, **config})
    return OutboxRelay(database, broker, fake_context("worker/relay", events=events), settings)


async def received(broker: Broker, count: int) -> list[Delivery]:
    deliveries: list[Delivery] = []
    async with broker.subscribe(Subscription(queue="q", prefetch=count)) as coming:
        with trio.fail_after(5):
            while len(deliveries) < count:
                deliveries.append(await anext(coming))
                await deliveries[-1].settle(Ack())
    return deliveries


async def act(database: Database, envelope: Envelope, error: Exception | None = None) -> bool:
    async with database.transaction() as transaction:
        if not await transaction.once(envelope.id, scope="act"):
            return False
        await transaction.execute("INSERT INTO effect VALUES (%s)", [envelope.id])
        await transaction.send(envelope, exchange="")
        if error is not None:
            raise error
    return True


async def test_what_is_sent_in_a_transaction_arrives_as_it_was_when_it_is_committed(
    open_database: OpenDatabase, empty: None
) -> None:
    envelope = Envelope(
        subject="q",
        body=b"\0\xff",
        headers={"a": [1, None], "b": "\u20ac"},
        content_type="x/y",
        reply_to="r",
        correlation_id="c",
        deadline=trio.current_time() + 60,
    )
    async with open_database(outbox=True) as database, open_broker("q") as broker, trio.open_nursery() as nursery:
        nursery.start_soon(relay(database, broker).run)
        with pytest.raises(ZeroDivisionError):
            await act(database, envelope, ZeroDivisionError())
        assert await act(database, envelope)
        assert not await act(database, envelope)
        (delivery,) = await received(broker, 1)
        nursery.cancel_scope.cancel()

    got = delivery.envelope
    assert math.isclose(got.deadline, envelope.deadline, abs_tol=1.0)
    for name in ("id", "subject", "body", "headers", "content_type", "reply_to", "correlation_id", "priority"):
        assert getattr(got, name) == getattr(envelope, name)


FAILING = {
    "unique": "INSERT INTO effect_once VALUES (1), (1)",
    "no such table": "SELECT 1 FROM nowhere",
    "no statement": "SELEKT",
    "division": "SELECT 1 / 0",
    "too late": "SET LOCAL statement_timeout = 1; SELECT pg_sleep(1)",
}


@pytest.mark.parametrize("how", FAILING)
async def test_a_transaction_whose_error_was_caught_is_an_error_and_its_message_is_handled_again(
    how: str, open_database: OpenDatabase, cluster: Cluster, empty: None
) -> None:
    """The server answers ROLLBACK to its COMMIT, and no error: effect, id and message would be lost in silence."""
    cluster.query("DROP TABLE IF EXISTS effect_once")
    cluster.query("CREATE TABLE effect_once (number int PRIMARY KEY)")
    async with open_database(outbox=True) as database:
        for _ in range(2):
            with pytest.raises(psycopg.errors.InFailedSqlTransaction, match="all of it is undone"):  # noqa: PT012  on exit
                async with database.transaction() as transaction:
                    assert await transaction.once("1", scope="act")
                    await transaction.execute("INSERT INTO effect VALUES ('1')")
                    await transaction.send(Envelope(subject="q", body=b""), exchange="")
                    with suppress(psycopg.Error):
                        await transaction.execute(FAILING[how])
        async with database.transaction() as transaction:
            with suppress(psycopg.Error):
                async with transaction.connection.transaction():
                    await transaction.execute(FAILING[how])
            await transaction.execute("INSERT INTO effect VALUES ('2')")
        written = await database.execute("SELECT id FROM effect")
        left = await database.execute("SELECT count(*) FROM kernel_outbox")

    assert (written, left) == ([("2",)], [(0,)])


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK"])
async def test_a_transaction_that_a_statement_ended_is_an_error(
    statement: str, open_database: OpenDatabase, empty: None
) -> None:
    async with open_database(outbox=True) as database:
        with pytest.raises(psycopg.ProgrammingError, match="a statement ended this transaction"):
            async with database.transaction() as transaction:
                await transaction.execute(statement)
        assert await act(database, Envelope(subject="q", body=b""))


async def test_an_isolation_that_there_is_not_is_named_beside_those_that_there_are(
    open_database: OpenDatabase,
) -> None:
    async with open_database() as database:
        with pytest.raises(ValueError, match=r"isolation must be one of 'read committed', .*, not 'bogus'"):
            async with database.transaction(isolation="bogus"):  # type: ignore[arg-type]
                pytest.fail("it began")


async def test_messages_keep_the_order_in_which_they_were_written(open_database: OpenDatabase, empty: None) -> None:
    async with open_database(outbox=True) as database, open_broker("q") as broker, trio.open_nursery() as nursery:
        for number in range(20):
            await act(database, Envelope(subject="q", id=str(number)))
        for _ in range(2):
            nursery.start_soon(relay(database, broker, batch=3).run)
        deliveries = await received(broker, 20)
        nursery.cancel_scope.cancel()

    assert [delivery.envelope.id for delivery in deliveries] == [str(number) for number in range(20)]


async def test_of_two_that_handle_a_message_at_once_one_has_the_effect(
    open_database: OpenDatabase, cluster: Cluster, empty: None
) -> None:
    answers: list[bool] = []
    async with open_database(outbox=True) as database:

        async def handle() -> None:
            answers.append(await act(database, Envelope(subject="q", id="same")))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(handle)

    assert sorted(answers) == [False, False, False, False, True]
    assert cluster.query("SELECT id FROM effect") == [("same",)]


async def test_ids_are_forgotten_after_their_time(open_database: OpenDatabase, cluster: Cluster, empty: None) -> None:
    async with open_database(outbox=True) as database:
        assert await act(database, Envelope(subject="q", id="old"))
        cluster.query("UPDATE kernel_inbox SET handled = now() - interval '2 days'")
    async with open_database(outbox=True, once_retention=86_400.0) as database:
        with trio.fail_after(5):
            while cluster.query("SELECT 1 FROM kernel_inbox"):  # noqa: ASYNC110  it happens in the database
                await trio.sleep(0.01)

        assert await act(database, Envelope(subject="q", id="old"))


async def test_without_an_outbox_a_transaction_says_what_is_missing(open_database: OpenDatabase) -> None:
    async with open_database() as database, database.transaction() as transaction:
        with pytest.raises(RuntimeError, match="outbox = true"):
            await transaction.once("x")
