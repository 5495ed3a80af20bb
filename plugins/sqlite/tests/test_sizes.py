"""Bounds in bytes: what is above them is refused or drops the oldest, and the count in the file is what is in it."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Generator
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner
from kernel_sqlite import SqliteOptions
from kernel_sqlite._commands import queue as command
from kernel_sqlite._file import create_or_open
from kernel_sqlite._inspection import purge, retry
from kernel_sqlite._letter import Claim, Letter
from kernel_sqlite._store import Store

from kernel import Ack, DeadLetter, Outcome, Retry, Return
from kernel.abc import Binding, Exchange, Queue, Topology
from kernel.errors import ConflictError, KernelError, PlanError, QueueFullError
from kernel.testing import open_kernel


@pytest.fixture
def store(path: Path) -> Generator[Store]:
    connection = create_or_open(path, synchronous="normal").connection
    yield Store(connection)
    connection.close()


def declare(store: Store, **options: object) -> None:
    most = {"options": SqliteOptions(max_length_bytes=100), **options}
    queues = [Queue(name="q.dead"), Queue(name="q", dead_letters="q.dead", **most), Queue(name="free")]  # type: ignore[arg-type]  # as a test says
    bindings = [Binding(queue=name, exchange="events", pattern="#") for name in ("q", "free")]
    store.begin()
    store.declare(Topology(exchanges=[Exchange(name="events")], queues=queues, bindings=bindings))
    store.commit()


def send(store: Store, size: int, name: str = "m", *, exchange: str = "", delay: float = 0.0) -> None:
    store.begin()
    try:
        store.send(Letter(name, "q", b"x" * size, "", "", "", "", 9, delay, None), exchange=exchange, mandatory=True)
        store.commit()
    finally:
        store.rollback()


def ids(store: Store, name: str) -> list[str]:
    store.begin()
    found = [claim.letter.id for claim in store.peek(name, 100)]
    store.commit()
    return found


def test_a_queue_takes_so_many_bytes_and_not_one_more(store: Store) -> None:
    declare(store)
    send(store, 60)
    send(store, 40)

    with pytest.raises(QueueFullError, match='"q" is full: it holds 100 of at most 100 bytes, and 1 were to come'):
        send(store, 1)
    send(store, 0)


def test_a_queue_that_refuses_has_no_other_queue_get_the_message_either(store: Store) -> None:
    declare(store)
    send(store, 90)

    with pytest.raises(QueueFullError):
        send(store, 20, exchange="events")
    assert ids(store, "free") == []


def test_the_oldest_make_room_for_what_comes(store: Store) -> None:
    declare(store, overflow="drop_oldest")
    for name, size in (("a", 30), ("b", 30), ("c", 30), ("d", 60)):
        send(store, size, name)

    assert (ids(store, "q"), ids(store, "q.dead")) == (["c", "d"], ["a", "b"])


def test_what_is_larger_than_the_bound_is_refused_by_any_queue(store: Store) -> None:
    declare(store, overflow="drop_oldest")
    send(store, 100, "a")

    with pytest.raises(QueueFullError, match="101 were to come"):
        send(store, 101, "b")
    assert ids(store, "q") == ["a"]


def test_what_is_under_way_leaves_room_as_with_messages(store: Store) -> None:
    declare(store)
    send(store, 100, "a")
    store.begin()
    [claim] = store.claim("q", 1)
    store.commit()
    send(store, 100, "b")

    store.begin()
    store.settle(claim, Return())
    store.commit()

    assert ids(store, "q") == ["a", "b"]
    with pytest.raises(QueueFullError, match="it holds 200 of at most 100 bytes"):
        send(store, 1)


def test_dead_letters_with_a_bound_drop_their_oldest(store: Store) -> None:
    store.begin()
    graves = SqliteOptions(max_length_bytes=100)
    store.declare(Topology(queues=[Queue(name="q.dead", options=graves), Queue(name="q", dead_letters="q.dead")]))
    store.commit()
    for name in "abcd":
        send(store, 40, name)
    store.begin()
    for claim in store.claim("q", 4):
        store.settle(claim, DeadLetter("no use"))
    store.commit()

    assert ids(store, "q.dead") == ["c", "d"]


def test_a_bound_that_is_another_one_is_a_conflict_and_can_be_altered(store: Store, path: Path) -> None:
    declare(store)
    with pytest.raises(ConflictError, match=r"declared with options\.max_length_bytes = 100, and is asked for with 5"):
        declare(store, options=SqliteOptions(max_length_bytes=5))
    store.rollback()

    done = CliRunner().invoke(command, ["alter", "q", "--max-length-bytes", "5", "--file", str(path)])
    declare(store, options=SqliteOptions(max_length_bytes=5))
    CliRunner().invoke(command, ["alter", "q", "--max-length-bytes", "0", "--file", str(path)])
    declare(store, options=None)
    declare(store, options=SqliteOptions())
    rows = json.loads(CliRunner().invoke(command, ["list", "--json", "--file", str(path)]).output)

    assert done.output.splitlines()[0] == 'queue "q" altered: max_length_bytes = 5'
    assert "Write the same into the manifest" in done.output
    assert {row["max_length_bytes"] for row in rows} == {None}


def test_a_bound_that_comes_later_counts_what_is_there(store: Store, path: Path) -> None:
    declare(store, options=None)
    send(store, 60)
    CliRunner().invoke(command, ["alter", "q", "--max-length-bytes", "100", "--file", str(path)])

    with pytest.raises(QueueFullError, match="it holds 60 of at most 100 bytes"):
        send(store, 41)


def test_a_file_without_such_bounds_has_nothing_of_them(store: Store, path: Path) -> None:
    declare(store, options=None)
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'kernel_size%'").fetchall()
    connection.close()

    assert found == []


@attrs.define(eq=False)
class Acts:
    """Things that happen to queues, by chance."""

    store: Store
    chance: random.Random
    claims: list[Claim] = attrs.field(factory=list)

    def one(self) -> None:
        act = self.chance.choice((self.send, self.send, self.send, self.take, self.settle, self.settle, self.tidy))
        self.store.begin()
        try:
            for _ in range(self.chance.randrange(1, 4)):
                act()
            self.store.commit()
        except KernelError:
            pass
        finally:
            self.store.rollback()

    def send(self) -> None:
        size, delay = self.chance.choice((0, 1, 30, 90)), self.chance.choice((0.0, 0.0, 60.0))
        letter = Letter(f"m{self.chance.random()}", "q", b"x" * size, "", "", "", "", 9, delay, None)
        self.store.send(letter, exchange=self.chance.choice(("", "events")), mandatory=True)

    def take(self) -> None:
        self.claims += self.store.claim(self.chance.choice(("q", "q.dead", "free")), 2)

    def settle(self) -> None:
        outcomes: list[Outcome] = [Ack(), Retry(), Retry(60.0), DeadLetter("no use"), Return()]
        if self.claims:
            self.store.settle(self.claims.pop(), self.chance.choice(outcomes))

    def tidy(self) -> None:
        match self.chance.randrange(4):
            case 0:
                purge(self.store, self.chance.choice(("q", "q.dead")), 2)
            case 1:
                retry(self.store, "q.dead", 1)
            case 2:
                self.store.give_back(self.claims, redelivered=False)
                self.claims.clear()
            case _:
                self.store.close()
                self.claims.clear()


@pytest.mark.parametrize("overflow", ["refuse", "drop_oldest"])
@pytest.mark.parametrize("seed", range(10))
def test_the_count_in_the_file_is_what_waits_whatever_happens(store: Store, seed: int, overflow: str) -> None:
    declare(store, overflow=overflow)
    store.begin()
    store.shelves.catalog.sizes.bound(store.shelves.catalog.need("q.dead").id, 200)
    store.shelves.catalog.replace(
        store.shelves.catalog.need("q.dead"), Queue(name="q.dead", options=SqliteOptions(max_length_bytes=200))
    )
    store.commit()
    acts = Acts(store, random.Random(seed))
    wrong = []
    for number in range(200):
        acts.one()
        wrong += [(number, name, counted, real) for name, counted, real in counts(store) if counted != real]

    assert wrong == []


def counts(store: Store) -> list[tuple[str, int, int]]:
    """Return for each queue with a bound what the file has counted, and what is in it."""
    rows: list[tuple[str, int, int]] = store.shelves.connection.execute(
        "SELECT name, bytes, (SELECT coalesce(sum(length(body)), 0) FROM kernel_entry AS e JOIN kernel_content USING (seq)"
        " WHERE e.queue = kernel_size.queue AND e.state <> 2) FROM kernel_size JOIN kernel_queue ON id = kernel_size.queue"
    ).fetchall()
    return rows


async def test_the_bound_stands_in_the_table_of_the_consumer(tmp_path: Path) -> None:
    manifest = {
        "drivers": {"queue": {"plugin": "sqlite", "path": str(tmp_path / "queues.db")}},
        "dispatchers": {
            "work": {
                "plugin": "consumer",
                "driver": "queue",
                "protocol": "json",
                "queue": "q",
                "options": {"max_length_bytes": 0},
            }
        },
        "workers": {"worker": {"use": f"{__name__}:work", "dispatcher": "work"}},
    }

    with pytest.raises(PlanError, match=r"options\].max_length_bytes|options.max_length_bytes"):
        async with open_kernel(manifest):
            pass


async def work(payload: object) -> None:
    """Do nothing."""
