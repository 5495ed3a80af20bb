from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kernel_sqlite._file import create_or_open
from kernel_sqlite._inspection import purge, waiting_in
from kernel_sqlite._letter import Claim, Letter
from kernel_sqlite._sizes import SqliteOptions
from kernel_sqlite._store import Store

from kernel import Ack, DeadLetter, Outcome, Retry, Return
from kernel.abc import Binding, Exchange, Queue, Topology
from kernel.errors import ConflictError, QueueFullError, UnknownOutcomeError


class Wall:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def store(path: Path, wall: Wall) -> Iterator[Store]:
    with stored(path, wall) as made:
        yield made


@contextmanager
def stored(path: Path, wall: Wall) -> Iterator[Store]:
    connection = create_or_open(path, synchronous="normal").connection
    yield Store(connection, lease=30.0, clock=wall)
    connection.close()


@contextmanager
def committed(store: Store) -> Iterator[None]:
    store.begin()
    yield
    store.commit()


def declare(store: Store, name: str = "q", **properties: Any) -> None:
    dead = [Queue(name=properties["dead_letters"])] if "dead_letters" in properties else []
    with committed(store):
        store.declare(Topology(queues=[*dead, Queue(name=name, **properties)]))


def send(store: Store, *texts: str, queue: str = "q", exchange: str = "", **fields: Any) -> None:
    with committed(store):
        for text in texts:
            letter = Letter(text, queue, text.encode(), "", "", "", "", 9, 0.0, None)._replace(**fields)
            store.send(letter, exchange=exchange, mandatory=True)


def claim(store: Store, limit: int = 10, queue: str = "q") -> list[Claim]:
    with committed(store):
        return store.claim(queue, limit)


def settle(store: Store, claims: list[Claim], outcome: Outcome) -> None:
    with committed(store):
        for one in claims:
            store.settle(one, outcome)


def look(store: Store, queue: str = "q") -> list[str]:
    with committed(store):
        return [found.letter.id for found in store.peek(queue, 1000)]


def ids(claims: list[Claim]) -> list[str]:
    return [one.letter.id for one in claims]


def waiting(store: Store) -> dict[str, int]:
    with committed(store):
        return {queue.spec.name: count for queue, count in waiting_in(store)}


def rows(path: Path, table: str) -> int:
    connection = sqlite3.connect(path)
    (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    connection.close()
    return int(count)


def test_many_messages_go_in_and_out_in_order(store: Store, path: Path) -> None:
    names = [f"{number:03}" for number in range(301)]
    declare(store)
    send(store, *names)
    taken = claim(store, 1000)
    settle(store, taken, Ack())

    assert ids(taken) == names
    assert (rows(path, "kernel_entry"), rows(path, "kernel_content"), waiting(store)) == (0, 0, {"q": 0})


LOTS = {
    "one": [1],
    "a short run": [7],
    "the shortest that is made at once": [8],
    "a long one": [200],
    "all different": [1] * 30,
    "runs of all lengths": [9, 1, 7, 40, 8, 2, 2, 130, 1],
}
"""How many messages alike follow one another in a transaction."""


@pytest.mark.parametrize("lengths", LOTS.values(), ids=LOTS.keys())
@pytest.mark.parametrize(
    "other",
    [
        {"rank": 4},
        {"deadline": 2_000_000.0},
        {"subject": "other"},
        {"delay": 60.0},
        {"subject": "narrow"},
        {"body": b"another", "headers": '{"a": 1}', "content_type": "text/x", "reply_to": "r", "correlation_id": "c"},
    ],
    ids=lambda other: next(iter(other.items()))[-1],
)
def test_each_message_of_a_transaction_stands_where_its_own_fields_say(
    lengths: list[int], other: dict[str, Any], store: Store, wall: Wall
) -> None:
    """However many before and after it are alike; every second lot is of another kind."""
    declare(store)
    declare(store, "other")
    declare(store, "narrow", options=SqliteOptions(max_length_bytes=1_000_000))
    usual = Letter("", "q", b"body", "", "", "", "", 9, 0.0, None)
    kinds = [
        usual._replace(**(other if place % 2 else {})) for place, length in enumerate(lengths) for _ in range(length)
    ]
    letters = [kind._replace(id=f"{number:03}") for number, kind in enumerate(kinds)]
    with committed(store):
        for letter in letters:
            store.send(letter, exchange="", mandatory=True)
    counts = waiting(store)
    wall.now += 100.0
    with committed(store):
        store.upkeep()
    taken = [one.letter for queue in ("q", "other", "narrow") for one in claim(store, 1000, queue)]

    assert sum(counts.values()) == len(letters)
    assert sorted(taken) == sorted(letter._replace(delay=0.0) for letter in letters)
    assert [one.id for one in taken if one.subject == "q"] == [
        one.id for one in sorted((one for one in letters if one.subject == "q"), key=lambda one: (one.rank, one.delay))
    ]


OWN = {
    "headers": lambda number: {"headers": f'{{"n": {number}}}'},
    "correlation ids": lambda number: {"correlation_id": f"c{number}"},
    "all": lambda number: {
        name: f"{name} {number}" for name in ("headers", "content_type", "reply_to", "correlation_id")
    },
    "nothing": lambda _: {},
}
"""What each of the messages of a transaction has for itself."""


@pytest.mark.parametrize("own", OWN.values(), ids=OWN.keys())
def test_messages_share_no_more_than_they_have_in_common(own: Callable[[int], dict[str, str]], store: Store) -> None:
    declare(store)
    usual = Letter("", "q", b"", "", "", "", "", 9, 0.0, None)
    letters = [usual._replace(id=f"{one:03}", body=b"%d" % one, **own(one)) for one in range(203)]
    with committed(store):
        for letter in letters:
            store.send(letter, exchange="", mandatory=True)

    assert [one.letter for one in claim(store, 1000)] == letters


def test_no_number_is_used_twice_whoever_sends_and_however_often_the_file_is_opened(path: Path, wall: Wall) -> None:
    """A process takes more numbers than it needs at a time."""
    with stored(path, wall) as first, stored(path, wall) as second:
        declare(first)
        for number, sender in enumerate([first, first, second, first, second, second]):
            send(sender, f"{number}")
        with committed(first):
            for number in range(6, 2500):
                first.send(Letter(f"{number}", "q", b"", "", "", "", "", 9, 0.0, None), exchange="", mandatory=True)
        send(second, "2500")
    with stored(path, wall) as third:
        send(third, "2501")
        taken = claim(third, 10_000)

    assert [one.letter.id for one in taken] == [str(number) for number in range(2502)]
    assert sorted({one.seq for one in taken}) == [one.seq for one in taken]


def test_numbers_of_a_transaction_that_is_undone_are_taken_again_by_one_at_most(path: Path, wall: Wall) -> None:
    with stored(path, wall) as first, stored(path, wall) as second:
        declare(first)
        first.begin()
        first.send(Letter("undone", "q", b"", "", "", "", "", 9, 0.0, None), exchange="", mandatory=True)
        first.prepare()
        first.rollback()
        for number, sender in enumerate([second, first, second, first]):
            send(sender, f"{number}")
        taken = claim(first, 10)

    assert [one.letter.id for one in taken] == ["0", "1", "2", "3"]


def test_a_refusal_in_a_transaction_hurts_nobody_else(store: Store) -> None:
    declare(store, max_length=1)
    store.begin()
    letter = Letter("a", "q", b"", "", "", "", "", 9, 0.0, None)
    store.send(letter, exchange="", mandatory=True)
    with pytest.raises(QueueFullError):
        store.send(letter._replace(id="b"), exchange="", mandatory=True)
    store.commit()

    assert look(store) == ["a"]


def test_a_rollback_forgets_everything(store: Store) -> None:
    declare(store)
    store.begin()
    store.declare(Topology(queues=[Queue(name="other")]))
    store.send(Letter("a", "q", b"", "", "", "", "", 9, 0.0, None), exchange="", mandatory=True)
    store.rollback()

    assert (look(store), waiting(store)) == ([], {"q": 0})
    with pytest.raises(ConflictError):
        look(store, "other")
    store.rollback()
    send(store, "b")
    assert look(store) == ["b"]


def test_numbers_are_never_used_again(store: Store) -> None:
    declare(store)
    send(store, "a")
    first = claim(store)
    settle(store, first, Ack())
    send(store, "b")

    assert claim(store)[0].seq > first[0].seq


def test_the_attempt_is_in_the_file_when_the_claim_is(store: Store, path: Path, wall: Wall) -> None:
    declare(store)
    send(store, "a")
    claim(store)
    with stored(path, wall) as other:
        wall.now += 31
        with committed(other):
            other.upkeep()
        again = claim(other)

    assert [(one.attempt, one.redelivered) for one in again] == [(2, True)]


def test_a_lease_that_is_renewed_keeps_its_claims(store: Store, path: Path, wall: Wall) -> None:
    declare(store)
    send(store, "a")
    claim(store)
    with stored(path, wall) as other:
        for _ in range(20):
            wall.now = max(wall.now, store.next_time())
            with committed(store):
                store.upkeep()
            with committed(other):
                other.upkeep()
            assert claim(other) == []


def test_an_ack_after_the_lease_was_lost_is_refused_and_takes_nothing_from_others(
    store: Store, path: Path, wall: Wall
) -> None:
    declare(store)
    send(store, "a")
    lost = claim(store)
    wall.now += 31
    with stored(path, wall) as other:
        with committed(other):
            other.upkeep()
        theirs = claim(other)
        store.begin()
        with pytest.raises(UnknownOutcomeError, match="lease of delivery a was lost"):
            store.settle(lost[0], Ack())
        store.commit()
        settle(other, theirs, Ack())

    assert (ids(theirs), waiting(store)) == (["a"], {"q": 0})


def test_a_lease_that_covers_nothing_ends(store: Store, path: Path, wall: Wall) -> None:
    declare(store)
    send(store, "a")
    settle(store, claim(store), Ack())
    wall.now += 11
    with committed(store):
        store.upkeep()

    assert (store.holder, rows(path, "kernel_holder")) == (None, 0)


def test_exclusive_queues_of_dead_processes_are_removed(store: Store, path: Path, wall: Wall) -> None:
    declare(store, "mine", exclusive=True)
    with stored(path, wall) as other:
        other.begin()
        with pytest.raises(ConflictError, match="of another process"):
            other.join("mine")
        other.rollback()
        wall.now += 31
        with committed(other):
            other.upkeep()

        assert waiting(other) == {}


def test_closing_gives_back_at_once(store: Store, path: Path, wall: Wall) -> None:
    declare(store)
    send(store, "a")
    claim(store)
    with committed(store):
        store.close()

    assert look(store) == ["a"]


def test_what_waits_is_counted_whatever_becomes_of_it(store: Store, wall: Wall) -> None:
    declare(store, dead_letters="d", ttl=60.0)
    send(store, *"abcdef")
    send(store, "late", delay=10.0)
    for outcome in (Ack(), Retry(), Retry(5.0), DeadLetter("bad"), Return()):
        settle(store, claim(store, 1), outcome)
    assert waiting(store) == {"q": 5, "d": 1}

    wall.now += 11
    with committed(store):
        store.upkeep()
    assert len(look(store)) == 5
    wall.now += 61
    with committed(store):
        store.upkeep()
    assert (waiting(store), len(look(store, "d"))) == ({"q": 0, "d": 6}, 6)


def test_more_than_one_step_of_lives_may_end_at_once(store: Store, wall: Wall) -> None:
    declare(store, ttl=1.0)
    send(store, *map(str, range(1200)))
    wall.now += 2
    steps = 0
    while store.next_time() <= wall.now:
        with committed(store):
            store.upkeep()
        steps += 1

    assert (steps, waiting(store)) == (3, {"q": 0})


def test_the_oldest_makes_room_whatever_its_priority(store: Store) -> None:
    declare(store, max_length=2, overflow="drop_oldest", dead_letters="d")
    send(store, "old", rank=0)
    send(store, "b", "c")

    assert (look(store), look(store, "d")) == (["b", "c"], ["old"])


def test_a_duplicate_is_not_queued_within_the_window(store: Store, wall: Wall, path: Path) -> None:
    declare(store, deduplication_window=10.0)
    send(store, "a", "a")
    assert look(store) == ["a"]

    wall.now += 61
    with committed(store):
        store.upkeep()
    assert rows(path, "kernel_seen") == 0
    send(store, "a")
    assert look(store) == ["a", "a"]


def test_another_process_sees_topology_counts_and_numbers(store: Store, path: Path, wall: Wall) -> None:
    with stored(path, wall) as other:
        declare(store, max_length=3)
        send(store, "a", "b")
        send(other, "c")
        assert (store.has_changed(), other.has_changed()) == (True, False)
        with committed(other):
            exchange = Exchange(name="e")
            other.declare(Topology(exchanges=[exchange], bindings=[Binding(queue="q", exchange="e", pattern="#")]))
        store.begin()
        letter = Letter("d", "any", b"", "", "", "", "", 9, 0.0, None)
        with pytest.raises(QueueFullError):
            store.send(letter, exchange="e", mandatory=True)
        store.commit()

    assert look(store) == ["a", "b", "c"]


def test_a_lane_goes_on_when_its_first_is_purged(store: Store, path: Path) -> None:
    declare(store, partition_by="header:key")
    send(store, "a", "b", headers='{"key": "k"}')
    taken = claim(store)
    with committed(store):
        assert purge(store, "q", 10) == 1
    settle(store, taken, Ack())
    send(store, "c", headers='{"key": "k"}')

    assert (ids(taken), look(store), rows(path, "kernel_lane")) == (["a"], ["c"], 1)


def test_recovering_what_was_settled_does_nothing(store: Store, wall: Wall) -> None:
    declare(store)
    send(store, "a", "b")
    one, two = claim(store)
    settle(store, [one], Ack())
    with committed(store):
        store.recover(one)
        store.recover(two)
        store.recover(two)
    wall.now += 2.0
    with committed(store):
        store.upkeep()

    assert (look(store), waiting(store)) == (["b"], {"q": 1})


def test_once_is_remembered_for_each_scope(store: Store) -> None:
    with committed(store):
        assert [store.once("1", "a"), store.once("1", "a"), store.once("1", "b")] == [True, False, True]


def test_hot_statements_use_their_indexes(store: Store, path: Path) -> None:
    """A sort or a scan would make each claim as slow as the queue is long."""
    declare(store)
    send(store, *map(str, range(50)))
    connection = sqlite3.connect(path)
    plans = [
        connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
        for statement in (
            "SELECT seq FROM kernel_entry WHERE queue = 1 AND state = 0 ORDER BY rank, place LIMIT 10",
            "SELECT min(due) FROM kernel_entry WHERE state = 1",
            "SELECT min(expires) FROM kernel_entry WHERE state IN (0, 3) AND expires IS NOT NULL",
            "SELECT place FROM kernel_entry WHERE queue = 1 AND state = 0 AND rank = 4 ORDER BY place LIMIT 1",
            "SELECT place FROM kernel_entry WHERE queue = 1 AND state = 1 ORDER BY place LIMIT 1",
            "SELECT place FROM kernel_entry WHERE queue = 1 AND state = 3 ORDER BY place LIMIT 1",
            "SELECT queue, count(*) FROM kernel_entry WHERE state = 2 AND holder = 1",
        )
    ]
    connection.close()
    told = [" ".join(str(row[3]) for row in plan) for plan in plans]

    assert [text for text in told if "INDEX kernel_entry_" not in text or "TEMP B-TREE" in text] == []


@pytest.mark.parametrize("count", [1, 2, 129, 300])
def test_what_is_sent_in_one_transaction_comes_out_as_it_was_sent_whatever_its_kind(
    count: int, store: Store, wall: Wall
) -> None:
    declare(store, "plain")
    declare(store, "ordered", partition_by="subject")
    kinds: list[dict[str, Any]] = [
        {"subject": "plain"},
        {"subject": "plain", "rank": 3, "deadline": wall.now + 60.0},
        {"subject": "ordered", "headers": "{}"},
        {"subject": "plain", "delay": 5.0},
    ]
    sent = [
        Letter(f"{number:03}", "", b"%d" % number, "", "t", "r", "c", 9, 0.0, None)._replace(**kinds[number % 4])
        for number in range(count)
    ]
    with committed(store):
        for letter in sent:
            store.send(letter, exchange="", mandatory=True)
    wall.now += 6.0
    with committed(store):
        store.upkeep()

    found = {}
    for queue in ("plain", "ordered"):
        with committed(store):
            found |= {each.letter.id: each for each in store.peek(queue, 1000)}
    assert [found[letter.id].letter for letter in sent] == [letter._replace(delay=0.0) for letter in sent]
    assert {each.expires for each in found.values()} <= {None, wall.now + 54.0}
    assert [found[letter.id].expires for letter in sent] == [letter.deadline for letter in sent]
