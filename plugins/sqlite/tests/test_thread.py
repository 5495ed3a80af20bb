"""The thread of the file: what ends a statement that runs on, and what becomes of everybody if the thread breaks."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
import trio
from kernel_sqlite import SqliteBroker, SqliteConfig, SqliteDriver
from kernel_sqlite._access import Access
from kernel_sqlite._events import MessageDropped
from kernel_sqlite._executor import Executor
from kernel_sqlite._thread import StoreThread

from kernel import Ack, DeadLetter, Envelope, Event, Retry, at_turn_end
from kernel.abc import Queue, Subscription, Topology
from kernel.errors import UnavailableError
from kernel.testing import fake_context, hold_clock_for_threads, no_leaks

from .conftest import OpenSqlite

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
STATEMENTS = {
    "reads": f"{ENDLESS} SELECT count(*) FROM n",
    "writes": f"{ENDLESS} INSERT INTO done SELECT x FROM n",
    "sorts": f"{ENDLESS} SELECT x FROM n ORDER BY -x",
}


async def prepare(broker: SqliteBroker) -> None:
    await broker.declare(Topology(queues=[Queue(name="q")]))
    async with broker.transaction() as transaction:
        await transaction.execute("CREATE TABLE done (id)")


async def run_on(broker: SqliteBroker, statement: str) -> None:
    async with broker.transaction() as transaction:
        await transaction.execute("INSERT INTO done VALUES ('x')")
        await transaction.execute(statement)


async def send(broker: SqliteBroker, name: str = "m") -> None:
    await broker.send(Envelope(subject="q", id=name), exchange="", mandatory=True)


# --- statements that run on -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
async def test_a_statement_that_runs_on_is_ended_and_undone(open_sqlite: OpenSqlite, statement: str) -> None:
    async with open_sqlite(transaction_timeout=0.2) as broker:
        await prepare(broker)
        with pytest.raises(UnavailableError, match=r"took over 0\.2 s"):
            await run_on(broker, statement)
        await send(broker)
        async with broker.transaction() as transaction:
            rows = await transaction.execute("SELECT count(*) FROM done")

    assert rows == [(0,)]


@pytest.mark.slow
async def test_a_statement_that_runs_on_is_ended_by_a_stop(open_sqlite: OpenSqlite) -> None:
    failed: list[Exception] = []

    async def run(broker: SqliteBroker) -> None:
        try:
            await run_on(broker, STATEMENTS["reads"])
        except UnavailableError as error:
            failed.append(error)

    with no_leaks():
        async with trio.open_nursery() as nursery, open_sqlite(transaction_timeout=15.0) as broker:
            await prepare(broker)
            nursery.start_soon(run, broker)
            await trio.sleep(0.1)

    assert len(failed) == 1


# --- what tasks ask for in one turn ------------------------------------------------------------------------------------


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many operations each transaction had."""
    found: list[int] = []
    execute = Executor.execute

    def noted(self: Executor, batch: Any) -> None:
        found.append(len(batch))
        execute(self, batch)

    monkeypatch.setattr(Executor, "execute", noted)
    return found


async def test_what_is_sent_in_one_turn_is_one_transaction(open_sqlite: OpenSqlite, sizes: list[int]) -> None:
    async with open_sqlite() as broker:
        await prepare(broker)
        sizes.clear()
        async with trio.open_nursery() as nursery:
            for number in range(64):
                nursery.start_soon(send, broker, f"{number}")

        assert sizes == [64]
        assert len(await broker.peek("q")) == 64


async def test_what_is_settled_and_sent_in_one_turn_is_one_transaction(
    open_sqlite: OpenSqlite, sizes: list[int]
) -> None:
    async with open_sqlite() as broker:
        await prepare(broker)
        await send(broker, "one")
        async with broker.subscribe(Subscription(queue="q", prefetch=1)) as deliveries:
            delivery = await anext(deliveries)
            sizes.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(delivery.settle, Ack())
                nursery.start_soon(send, broker, "two")

        assert sizes[:1] == [2]


async def test_a_send_that_is_cancelled_before_its_turn_is_over_is_not_sent(
    open_sqlite: OpenSqlite, sizes: list[int]
) -> None:
    async with open_sqlite() as broker:
        await prepare(broker)
        sizes.clear()
        with trio.CancelScope() as scope:
            scope.cancel()
            await send(broker, "one")
        waiting = await broker.peek("q")

        assert scope.cancelled_caught
        assert sizes == [1]  # the look
        assert waiting == []


# --- the last net -----------------------------------------------------------------------------------------------------

PLACES: dict[str, tuple[type, str]] = {
    "between transactions": (Access, "next_time"),
    "before a transaction": (Executor, "execute"),
    "after a transaction": (Executor, "tell_done"),
    "in a transaction of a worker": (StoreThread, "_next_of"),
}


@pytest.mark.parametrize(
    "error", [MemoryError(), RecursionError(), SystemError("so")], ids=lambda one: type(one).__name__
)
@pytest.mark.parametrize("place", PLACES)
async def test_an_error_in_the_thread_fails_the_driver_and_leaves_nobody_waiting(
    path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception
) -> None:
    cls, method = PLACES[place]
    driver = SqliteDriver(config=SqliteConfig(path=str(path)), context=fake_context("driver/queue"))
    ended: list[str] = []

    def broken(*_: Any, **__: Any) -> Any:
        raise error

    async def use(name: str, action: Callable[[], Any]) -> None:
        try:
            with suppress(UnavailableError):
                await action()
        finally:
            ended.append(name)

    async def live() -> None:
        async with driver.open() as broker:
            await prepare(broker)
            monkeypatch.setattr(cls, method, broken)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(use, "one", lambda: send(broker, "one"))
                nursery.start_soon(use, "own", lambda: run_on(broker, "SELECT 1"))
                nursery.start_soon(use, "two", lambda: send(broker, "two"))
            await trio.sleep_forever()

    with trio.fail_after(30), no_leaks(), pytest.raises(UnavailableError, match="has broken") as raised:
        await live()

    assert raised.value.__cause__ is error
    assert sorted(ended) == ["one", "own", "two"]


async def test_who_asks_in_the_turn_in_which_the_thread_breaks_is_told(
    open_sqlite: OpenSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Access) -> float:
        raise MemoryError

    def break_it(thread: StoreThread) -> None:
        monkeypatch.setattr(Access, "next_time", broken)
        with thread._lock:
            thread._lock.notify()
        while thread.failure is None:
            time.sleep(0.001)  # until the other thread has come so far

    with trio.fail_after(30), suppress(UnavailableError):
        async with open_sqlite() as broker:
            await prepare(broker)
            at_turn_end(lambda: break_it(broker._thread))
            with pytest.raises(UnavailableError, match="has broken") as raised:
                await send(broker)

    assert isinstance(raised.value.__cause__, MemoryError)


# --- what the file must take ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("step", [0.0, -3600.0], ids=["steady", "clock-set-back"])
async def test_an_outcome_waits_for_a_file_that_is_locked_and_no_handler_runs_again(
    open_sqlite: OpenSqlite, path: Path, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    async with open_sqlite(busy_timeout=0.05) as broker:
        await prepare(broker)
        await send(broker, "one")
        async with broker.subscribe(Subscription(queue="q", prefetch=1)) as deliveries:
            delivery = await anext(deliveries)
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with trio.move_on_after(0.5):
                    await delivery.settle(Ack())
                monkeypatch.setattr("kernel_sqlite._clock.time.time", _stepped(step))
                other.execute("ROLLBACK")
            await send(broker, "two")
            with trio.fail_after(10):
                following = await anext(deliveries)
            await following.settle(Ack())

        assert following.envelope.id == "two"
        assert await broker.peek("q") == []


REAL_TIME = time.time


def _stepped(seconds: float) -> Callable[[], float]:
    return lambda: REAL_TIME() + seconds


ODD = pytest.mark.parametrize("headers", ["[1, 2]", '"text"', "7", '{"a": 1', "nonsense"])
"""Headers that are none: of a file that something else has written."""


@ODD
async def test_a_message_that_cannot_be_read_comes_to_an_end(open_sqlite: OpenSqlite, path: Path, headers: str) -> None:
    events: list[Event] = []
    async with open_sqlite(events) as broker:
        await prepare(broker)
        await send(broker)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("UPDATE kernel_content SET headers = ?", [headers])
        await send(broker, "next")
        async with broker.subscribe(Subscription(queue="q", prefetch=1)) as deliveries:
            with trio.fail_after(10):
                following = await anext(deliveries)

    assert following.envelope.id == "next"
    assert [event.message_id for event in events if isinstance(event, MessageDropped)] == ["m"]


@ODD
async def test_a_message_that_cannot_be_settled_comes_to_an_end(
    open_sqlite: OpenSqlite, path: Path, headers: str
) -> None:
    events: list[Event] = []
    async with open_sqlite(events) as broker:
        await broker.declare(Topology(queues=[Queue(name="dead"), Queue(name="q", dead_letters="dead")]))
        async with broker.subscribe(Subscription(queue="q", prefetch=1)) as deliveries:
            await send(broker)
            delivery = await anext(deliveries)
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("UPDATE kernel_content SET headers = ?", [headers])
            with pytest.raises((TypeError, ValueError, AttributeError)):
                await delivery.settle(DeadLetter("no use"))
            await send(broker, "next")
            with trio.fail_after(10):
                following = await anext(deliveries)

    assert following.envelope.id == "next"
    assert [event.message_id for event in events if isinstance(event, MessageDropped)] == ["m"]


@pytest.mark.slow
async def test_a_recovered_message_does_not_come_again_at_once(
    open_sqlite: OpenSqlite, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    hold_clock_for_threads()
    times: list[float] = []
    async with open_sqlite() as broker:
        await prepare(broker)
        await send(broker)
        monkeypatch.setattr("kernel_sqlite._store.Store.settle", fail)
        async with broker.subscribe(Subscription(queue="q", prefetch=1)) as deliveries:
            for _ in range(3):
                delivery = await anext(deliveries)
                times.append(trio.current_time())
                with pytest.raises(MemoryError):
                    await delivery.settle(Retry())

    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([1.0, 1.0], abs=0.01)


@pytest.mark.parametrize(
    ("mode", "told"), [(0o600, []), (0o640, ["read"]), (0o666, ["write and read"]), (0o602, ["write"])]
)
async def test_a_file_that_others_may_read_or_write_is_told(path: Path, mode: int, told: list[str]) -> None:
    async with SqliteDriver(config=SqliteConfig(path=str(path)), context=fake_context("driver/queue")).open():
        await trio.Path(path).chmod(mode)
    with structlog.testing.capture_logs() as logs:
        context = attrs.evolve(fake_context("driver/queue"), log=structlog.get_logger())
        async with SqliteDriver(config=SqliteConfig(path=str(path)), context=context).open():
            pass

    assert [
        re.search(r"others may (.*) \"", line["event"])[1] for line in logs if line["log_level"] == "warning"
    ] == told  # type: ignore[index]
