from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from kernel_sqlite import MessageDropped, SqliteBroker, SqliteConfig, SqliteDriver

from kernel import Ack, Envelope, Event, Retry, StateChanged
from kernel.abc import Broker, Queue, Subscription, Topology, Transactional
from kernel.errors import (
    ConflictError,
    EncodeError,
    QueueFullError,
    SettledError,
    StartupError,
    StorageError,
    UnavailableError,
    UnknownOutcomeError,
)
from kernel.testing import fake_context

from .conftest import OpenSqlite


async def declare(broker: Broker, name: str = "q", **properties: Any) -> None:
    dead = [Queue(name=properties["dead_letters"])] if "dead_letters" in properties else []
    await broker.declare(Topology(queues=[*dead, Queue(name=name, **properties)]))


async def put(broker: Broker, *texts: str, queue: str = "q", **fields: Any) -> None:
    for text in texts:
        await broker.send(Envelope(subject=queue, body=text.encode(), **fields), exchange="", mandatory=True)


async def texts(broker: Broker, queue: str = "q") -> list[str]:
    return [delivery.envelope.body.decode() for delivery in await broker.peek(queue, limit=1_000_000)]


def wish(queue: str = "q", prefetch: int = 10) -> Subscription:
    return Subscription(queue=queue, prefetch=prefetch)


async def test_messages_outlive_the_broker(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await declare(broker, max_length=5)
        await put(broker, "a", "b")
    async with open_sqlite() as broker:
        assert await texts(broker) == ["a", "b"]
        with pytest.raises(ConflictError, match="max_length = 5"):
            await declare(broker, max_length=6)


async def test_what_is_in_hand_when_the_broker_closes_comes_back_at_once(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await declare(broker)
        await put(broker, "a")
        async with broker.subscribe(wish()) as deliveries:
            delivery = await anext(deliveries)
    with pytest.raises(UnavailableError):
        await delivery.settle(Ack())
    async with open_sqlite() as broker, broker.subscribe(wish()) as deliveries:
        again = await anext(deliveries)

        assert (again.attempt, again.redelivered) == (2, True)


async def test_after_closing_everything_is_unavailable(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await declare(broker)

    with pytest.raises(UnavailableError):
        await put(broker, "a")
    with pytest.raises(UnavailableError):
        async with broker.subscribe(wish()):
            pass
    with pytest.raises(UnavailableError):
        async with broker.transaction():
            pass


async def test_closing_leaves_no_log_and_no_thread(open_sqlite: OpenSqlite, path: Path) -> None:
    async with open_sqlite() as broker:
        await declare(broker)
        await put(broker, *map(str, range(100)))
    with trio.fail_after(5):
        while any(thread.name.startswith("sqlite") for thread in threading.enumerate()):  # noqa: ASYNC110
            await trio.sleep(0.01)

    # The lock of old versions of SQLite stays: somebody else may just be waiting for it.
    assert {file.name for file in path.parent.iterdir()} - {f"{path.name}-guard"} == {path.name}


async def test_closing_wakes_who_waits_for_a_message(open_sqlite: OpenSqlite) -> None:
    woken: list[str] = []

    async def wait(broker: SqliteBroker, task_status: trio.TaskStatus[None]) -> None:
        async with broker.subscribe(wish()) as deliveries:
            task_status.started()
            try:
                await anext(deliveries)
            except UnavailableError as error:
                woken.append(str(error))

    async with trio.open_nursery() as nursery, open_sqlite() as broker:
        await declare(broker)
        await nursery.start(wait, broker)
        await trio.sleep(0.02)

    assert woken == ['queue "q" is not consumed from here any more']


async def test_many_publishers_share_commits(open_sqlite: OpenSqlite, path: Path) -> None:
    async with open_sqlite() as broker:
        await declare(broker)
        connection = sqlite3.connect(path)
        before = connection.execute("PRAGMA data_version").fetchone()
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(put, broker, str(number))
        frames = os.stat(f"{path}-wal").st_size // 4096
        after = connection.execute("PRAGMA data_version").fetchone()
        connection.close()

        assert before != after
        assert frames < 200, "a commit for each message writes at least five pages each"


async def test_the_exact_overflow_is_refused(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite(max_length=100) as broker:
        await declare(broker)
        refused: list[int] = []

        async def send(number: int) -> None:
            try:
                await put(broker, str(number))
            except QueueFullError:
                refused.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(150):
                nursery.start_soon(send, number)

        assert (len(refused), len(await texts(broker))) == (50, 100)


async def test_what_is_dropped_is_told(open_sqlite: OpenSqlite) -> None:
    events: list[Event] = []
    async with open_sqlite(events) as broker:
        await declare(broker, max_length=1, overflow="drop_oldest")
        await put(broker, "a", id="1")
        await put(broker, "b", id="2")

    told = MessageDropped(component="driver/queue", queue="q", reason="overflow", message_id="1", subject="q")
    assert events == [told]


async def test_a_message_expires_without_a_consumer(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await declare(broker, ttl=0.05, dead_letters="d")
        await put(broker, "a")
        with trio.fail_after(5):
            while not await texts(broker, "d"):  # noqa: ASYNC110  nothing else can be asked
                await trio.sleep(0.02)

        assert (await texts(broker), await texts(broker, "d")) == ([], ["a"])


async def test_a_deadline_that_passes_while_the_message_lies_ready_here_is_kept(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await declare(broker, dead_letters="d")
        await put(broker, "a")
        await put(broker, "late", deadline=trio.current_time() + 0.1)
        await put(broker, "b")
        async with broker.subscribe(wish()) as deliveries:
            first = await anext(deliveries)
            await trio.sleep(0.15)
            second = await anext(deliveries)
            await first.settle(Ack())
            await second.settle(Ack())

        assert second.envelope.body == b"b"
        assert await texts(broker, "d") == ["late"]


async def test_a_settle_that_was_cancelled_before_it_began_can_be_repeated(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await declare(broker)
        await put(broker, "a")
        async with broker.subscribe(wish()) as deliveries:
            delivery = await anext(deliveries)
            with trio.CancelScope() as scope:
                scope.cancel()
                await delivery.settle(Ack())
            await delivery.settle(Retry())
            with pytest.raises(SettledError):
                await delivery.settle(Ack())

        assert await texts(broker) == ["a"]


async def test_a_process_gets_what_another_one_sends(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as one, open_sqlite(poll_interval=0.02) as two:
        await declare(one)
        async with two.subscribe(wish()) as deliveries:
            with trio.move_on_after(0.1):
                await anext(deliveries)
            began = trio.current_time()
            await put(one, "a")
            with trio.fail_after(5):
                delivery = await anext(deliveries)
            waited = trio.current_time() - began
            await delivery.settle(Ack())

        assert waited < 3
        assert await texts(one) == []


async def test_who_loses_the_lease_is_told_and_others_go_on(open_sqlite: OpenSqlite, path: Path) -> None:
    async with open_sqlite() as one, open_sqlite() as two:
        await declare(one)
        await put(one, "a")
        async with one.subscribe(wish()) as deliveries, two.subscribe(wish()) as others:
            lost = await anext(deliveries)
            connection = sqlite3.connect(path)
            connection.execute("UPDATE kernel_holder SET until = 0")  # as if the first had slept for long
            connection.commit()
            connection.close()
            await put(two, "b")
            taken = [await anext(others), await anext(others)]
            with pytest.raises(UnknownOutcomeError, match="lease"):
                await lost.settle(Ack())
            for delivery in taken:
                await delivery.settle(Ack())

        assert sorted(delivery.envelope.body for delivery in taken) == [b"a", b"b"]
        assert await texts(one) == []


async def test_a_lease_is_renewed_while_the_event_loop_is_blocked(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite(lease=1.0, transaction_timeout=0.1) as one:
        await declare(one)
        await put(one, "a")
        async with one.subscribe(wish()) as deliveries:
            delivery = await anext(deliveries)
            time.sleep(1.5)  # noqa: ASYNC251  what a bad handler does
            async with open_sqlite(lease=1.0) as two, two.subscribe(wish()) as others:
                with trio.move_on_after(0.2):
                    await anext(others)
                    pytest.fail("a delivery that is under way came to somebody else")
            await delivery.settle(Ack())


async def test_an_exclusive_queue_is_of_one_process(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as one, open_sqlite() as two:
        await declare(one, "mine", exclusive=True)
        with pytest.raises(ConflictError, match="of another process"):
            async with two.subscribe(wish("mine")):
                pass
        async with one.subscribe(wish("mine")) as deliveries:
            await put(two, "a", queue="mine")
            with trio.fail_after(5):
                await (await anext(deliveries)).settle(Ack())


async def test_a_file_that_is_removed_while_in_use_confirms_nothing_more(open_sqlite: OpenSqlite, path: Path) -> None:
    events: list[Event] = []
    async with open_sqlite(events) as broker:
        await declare(broker)
        kept = path.with_name("kept")
        os.rename(path, kept)
        with pytest.raises(StorageError, match="was removed"):
            await put(broker, "a")
        assert not await trio.Path(path).exists()
        os.rename(kept, path)
        await put(broker, "b")
        assert await texts(broker) == ["b"]

    states = [event.new.name for event in events if isinstance(event, StateChanged)]
    assert states == ["DEGRADED", "READY"]


async def test_a_file_that_is_locked_for_long_is_an_error_and_heals(open_sqlite: OpenSqlite, path: Path) -> None:
    async with open_sqlite(busy_timeout=0.2) as broker:
        await declare(broker)
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="busy_timeout"):
            await put(broker, "a")
        connection.execute("ROLLBACK")
        connection.close()
        await put(broker, "b")

        assert await texts(broker) == ["b"]


async def test_what_cannot_be_stored_hurts_no_other_message(open_sqlite: OpenSqlite) -> None:
    async with open_sqlite() as broker:
        await declare(broker)
        errors: list[Exception] = []

        async def send_nonsense() -> None:
            try:
                await broker.send(Envelope(subject="q", id="\ud800"), exchange="")
            except UnicodeEncodeError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, broker, "a")
            nursery.start_soon(send_nonsense)
            nursery.start_soon(put, broker, "b")

        assert (len(errors), sorted(await texts(broker))) == (1, ["a", "b"])


@pytest.mark.parametrize("headers", [{"a": {1, 2}}, {"a": b"x"}, {"a": math.nan}, {"a": object()}, {("a",): 1}, "abc"])
async def test_headers_that_json_cannot_say_are_refused(open_sqlite: OpenSqlite, headers: Any) -> None:
    async with open_sqlite() as broker:
        await declare(broker)
        with pytest.raises(EncodeError, match=r"header .* is nothing that JSON can say|headers are a mapping"):
            await broker.send(Envelope(subject="q", headers=headers), exchange="")


def test_a_transaction_may_not_outlast_the_lease() -> None:
    config = SqliteConfig(path="x", lease=10.0, transaction_timeout=6.0)

    assert ["transaction_timeout" in problem for problem in SqliteDriver.check(config)] == [True]
    assert list(SqliteDriver.check(SqliteConfig(path="x"))) == []
    assert issubclass(SqliteBroker, Transactional)


async def test_opening_refuses_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    config = SqliteConfig(path=str(tmp_path / "missing" / "q.db"))
    with pytest.raises(StartupError, match="folder"):
        async with SqliteDriver(config=config, context=fake_context("driver/queue")).open():
            pass
