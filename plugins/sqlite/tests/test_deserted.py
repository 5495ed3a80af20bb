"""A queue that is bound and that nobody consumes is told of, before it is full."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import structlog
import trio
from click.testing import CliRunner
from kernel_sqlite import QueueUnconsumed, SqliteConfig
from kernel_sqlite._commands import queue as command
from kernel_sqlite._deserted import Deserted, look, note
from kernel_sqlite._file import create_or_open
from kernel_sqlite._store import Store

from kernel import Envelope, Event
from kernel.abc import Binding, Exchange, Queue, Subscription, Topology

from .conftest import OpenSqlite

DAY = 86_400.0
RENAMED = Topology(
    exchanges=[Exchange(name="events")],
    queues=[Queue(name="new"), Queue(name="old", max_length=5), Queue(name="dead")],
    bindings=[Binding(queue=name, exchange="events", pattern="#") for name in ("new", "old")],
)


@attrs.define(eq=False)
class Process:
    """One of those that use a file; they share its clock."""

    store: Store

    def do(self, action: Callable[[Store], object]) -> None:
        self.store.begin()
        action(self.store)
        self.store.commit()

    def look(self, *consumed: str) -> list[tuple[str, float]]:
        found: list[Deserted] = []
        self.do(lambda store: found.extend(look(store, consumed=consumed, after=DAY)))
        return [(one.queue, one.seconds) for one in found]


@attrs.define(eq=False)
class Clock:
    now: float = 1_000_000.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def process(path: Path, clock: Clock) -> Generator[Process]:
    with opened(path, clock) as found:
        found.do(lambda store: store.declare(RENAMED))
        yield found


@contextmanager
def opened(path: Path, clock: Clock) -> Generator[Process]:
    connection = create_or_open(path, synchronous="normal").connection
    try:
        yield Process(Store(connection, clock=lambda: clock.now))
    finally:
        connection.close()


def test_a_bound_queue_that_nobody_has_consumed_for_a_day_is_found(process: Process, clock: Clock) -> None:
    seen = [process.look("new")]
    clock.now += DAY - 1
    seen.append(process.look("new"))
    clock.now += 1
    seen.append(process.look("new"))

    assert seen == [[], [], [("old", DAY)]]


def test_what_another_process_consumes_or_did_until_lately_is_not_found(
    process: Process, clock: Clock, path: Path
) -> None:
    with opened(path, clock) as other:
        for _ in range(10):
            other.look("old")
            clock.now += DAY / 2
            assert process.look("new") == []
        clock.now += DAY * 0.49
        before = process.look("new")
        clock.now += DAY * 0.02
        after = process.look("new")

    assert (before, after) == ([], [("old", pytest.approx(DAY * 1.01))])


def test_to_subscribe_and_to_leave_count_as_consuming(process: Process, clock: Clock) -> None:
    process.look("new")
    clock.now += 5 * DAY
    process.do(lambda store: note(store, ["old", "one that is gone"]))

    assert process.look("new") == []


def test_a_queue_that_is_unbound_or_deleted_is_not_found_any_more(process: Process, clock: Clock) -> None:
    process.look()
    clock.now += 2 * DAY
    process.do(lambda store: store.shelves.catalog.remove(store.shelves.catalog.need("old")))
    process.do(lambda store: store.shelves.catalog.unbind(store.shelves.catalog.need("new"), "events", "#"))

    assert process.look() == []


@pytest.mark.parametrize("back", [60.0, 3600.0, 365 * DAY])
def test_a_clock_that_is_set_back_makes_nothing_last_for_ever(process: Process, clock: Clock, back: float) -> None:
    process.look("new")
    clock.now -= back
    process.look("new")
    clock.now += DAY

    assert [name for name, _ in process.look("new")] == ["old"]


async def test_it_is_told_by_an_event_and_a_warning(open_sqlite: OpenSqlite) -> None:
    events: list[Event] = []
    with structlog.testing.capture_logs() as logs:
        async with open_sqlite(events, unconsumed_after=0.2) as broker:
            await broker.declare(RENAMED)
            await broker.send(Envelope(subject="a"), exchange="events")
            async with broker.subscribe(Subscription(queue="new", prefetch=1)):
                while len(told(events)) < 2:  # noqa: ASYNC110  events wake nobody
                    await trio.sleep(0.01)

    assert set(told(events)) == {("old", 1, 5)}
    assert all(
        'queue "old" is bound and fills, and nobody has consumed it for 0.0 h' in log["event"]
        for log in logs
        if log["log_level"] == "warning"
    )


def told(events: list[Event]) -> list[tuple[str, int, int]]:
    return [(event.queue, event.waiting, event.limit) for event in events if isinstance(event, QueueUnconsumed)]


def test_a_day_is_long_unless_the_manifest_says_otherwise() -> None:
    assert SqliteConfig(path="x").unconsumed_after == DAY


async def test_list_tells_when_queues_were_consumed(open_sqlite: OpenSqlite, path: Path) -> None:
    async with open_sqlite() as broker:
        await broker.declare(RENAMED)
        async with broker.subscribe(Subscription(queue="new", prefetch=1)):
            shown = await trio.to_thread.run_sync(listed, path)
            rows = await trio.to_thread.run_sync(listed, path, "--json")

    columns = [re.split("  +", line) for line in shown.splitlines()[1:]]
    assert [(row[0], row[5]) for row in columns] == [("new", "0 min ago"), ("old", "-"), ("dead", "-")]
    assert [row["queue"] for row in json.loads(rows) if row["consumed"] is not None] == ["new"]


def listed(path: Path, *options: str) -> str:
    return CliRunner().invoke(command, ["list", *options, "--file", str(path)]).output
