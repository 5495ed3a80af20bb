from __future__ import annotations

import sqlite3
from typing import Any

import pytest
import trio
from kernel_sqlite import SqliteBroker

from kernel import Ack, Envelope
from kernel.abc import Exchange, Queue, Subscription, Topology, Transaction
from kernel.errors import UnavailableError, UnroutableError

from .conftest import OpenSqlite


async def prepare(broker: SqliteBroker) -> None:
    await broker.declare(Topology(queues=[Queue(name="q")]))
    async with broker.transaction() as transaction:
        await transaction.execute("CREATE TABLE done (id TEXT)")


async def count(broker: SqliteBroker) -> tuple[Any, int]:
    """Return how many rows and messages there are."""
    async with broker.transaction() as transaction:
        rows = await transaction.execute("SELECT count(*) FROM done")
    return rows[0][0], len(await broker.peek("q"))


async def act(transaction: Transaction) -> None:
    await transaction.execute("INSERT INTO done VALUES (?)", ["x"])
    await transaction.send(Envelope(subject="q"), exchange="")


async def fail(broker: SqliteBroker) -> None:
    async with broker.transaction() as transaction:
        await act(transaction)
        assert await transaction.once("m")
        raise ZeroDivisionError


async def test_rows_and_messages_are_committed_together(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await prepare(broker)
        async with broker.transaction() as transaction:
            await act(transaction)
            assert await transaction.execute("SELECT id FROM done WHERE id = :id", {"id": "x"}) == [("x",)]

        assert await count(broker) == (1, 1)


async def test_an_error_undoes_rows_and_messages(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await prepare(broker)
        with pytest.raises(ZeroDivisionError):
            await fail(broker)

        assert await count(broker) == (0, 0)


async def test_cancellation_undoes_rows_and_messages(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await prepare(broker)
        with trio.move_on_after(0.05):
            async with broker.transaction() as transaction:
                await act(transaction)
                await trio.sleep_forever()

        assert await count(broker) == (0, 0)


async def test_once_is_true_once_and_is_undone_with_the_rest(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await prepare(broker)
        with pytest.raises(ZeroDivisionError):
            await fail(broker)
        answers: list[bool] = []
        for scope in ("", "", "other"):
            async with broker.transaction() as transaction:
                answers.append(await transaction.once("m", scope=scope))

        assert answers == [True, False, True]


async def test_a_consumer_hears_of_what_a_transaction_sent_when_it_is_committed(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await prepare(broker)
        async with broker.subscribe(Subscription(queue="q", prefetch=1)) as deliveries:
            async with broker.transaction() as transaction:
                await act(transaction)
                with trio.move_on_after(0.05):
                    await anext(deliveries)
                    pytest.fail("it was delivered before the commit")
            with trio.fail_after(5):
                await (await anext(deliveries)).settle(Ack())


async def test_a_refused_send_leaves_the_transaction_open(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await prepare(broker)
        async with broker.transaction() as transaction:
            await act(transaction)
            with pytest.raises(UnroutableError):
                await transaction.send(Envelope(subject="nowhere"), exchange="")

        assert await count(broker) == (1, 1)


@pytest.mark.parametrize("exchange", ["", "events"])
async def test_what_no_queue_gets_is_an_error_unless_the_sender_says_that_it_may_be(
    open_sqlite: OpenSqlite, exchange: str
) -> None:
    async with open_sqlite() as broker:
        await prepare(broker)
        await broker.declare(Topology(exchanges=[Exchange(name="events")]))
        async with broker.transaction() as transaction:
            await act(transaction)
            with pytest.raises(UnroutableError):
                await transaction.send(Envelope(subject="nobody.listens"), exchange=exchange)
            await transaction.send(Envelope(subject="nobody.listens"), exchange=exchange, mandatory=False)

        assert await count(broker) == (1, 1)


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "BEGIN",
        "SAVEPOINT x",
        "PRAGMA synchronous = off",
        "ATTACH ':memory:' AS other",
        "DELETE FROM kernel_entry",
        "UPDATE Kernel_Queue SET waiting = 5",
        "INSERT INTO kernel_once VALUES ('', '', 0)",
        "DROP TABLE kernel_content",
        "CREATE TABLE kernel_mine (x)",
        "CREATE TRIGGER t AFTER INSERT ON kernel_entry BEGIN SELECT 1; END",
    ],
)
async def test_a_statement_keeps_off_the_broker(open_sqlite: OpenSqlite, statement: str) -> None:
    async with open_sqlite() as broker:
        await prepare(broker)
        async with broker.transaction() as transaction:
            await act(transaction)
            with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
                await transaction.execute(statement)

        assert await count(broker) == (1, 1)


async def test_a_statement_may_read_the_broker(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await prepare(broker)
        async with broker.transaction() as transaction:
            await act(transaction)
            assert await transaction.execute("SELECT subject FROM kernel_content") == [("q",)]


async def test_using_the_broker_inside_is_an_error_and_no_deadlock(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await prepare(broker)
        async with broker.transaction():
            with pytest.raises(RuntimeError, match="use the transaction"):
                await broker.send(Envelope(subject="q"), exchange="")
            with pytest.raises(RuntimeError, match="use the transaction"):
                async with broker.transaction():
                    pass
        await broker.send(Envelope(subject="q"), exchange="")

        assert await count(broker) == (0, 1)


async def dawdle(broker: SqliteBroker) -> None:
    async with broker.transaction() as transaction:
        await act(transaction)
        await trio.sleep(0.3)
        with pytest.raises(UnavailableError):
            await act(transaction)


async def test_a_transaction_that_takes_too_long_is_undone(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite(transaction_timeout=0.1) as broker:
        await prepare(broker)
        with pytest.raises(UnavailableError, match=r"took over 0\.1 s"):
            await dawdle(broker)

        assert await count(broker) == (0, 0)


async def test_transactions_and_messages_take_turns(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await prepare(broker)

        async def transact() -> None:
            async with broker.transaction() as transaction:
                await act(transaction)

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(transact)
                nursery.start_soon(lambda: broker.send(Envelope(subject="q"), exchange=""))

        assert await count(broker) == (30, 60)


async def test_who_waits_for_a_transaction_can_be_cancelled(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker, trio.open_nursery() as nursery:
        await prepare(broker)

        async def wait(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
            with trio.CancelScope() as scope:
                task_status.started(scope)
                async with broker.transaction():
                    pytest.fail("two had the file")

        async def hold() -> None:
            async with broker.transaction() as transaction:
                await act(transaction)
                held.set()
                await cancelled.wait()

        held, cancelled = trio.Event(), trio.Event()
        nursery.start_soon(hold)
        await held.wait()
        scope = await nursery.start(wait)
        await trio.sleep(0.02)
        scope.cancel()
        cancelled.set()

    async with open_sqlite() as broker:
        assert await count(broker) == (1, 1)
