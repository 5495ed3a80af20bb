"""Facts about the lock that keeps commits and checkpoints apart where SQLite has the WAL-reset bug."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_sqlite._access import Access
from kernel_sqlite._clock import SystemClock
from kernel_sqlite._failure import is_busy
from kernel_sqlite._file import create_or_open
from kernel_sqlite._letter import Letter
from kernel_sqlite._reset_guard import ResetGuard, is_affected
from kernel_sqlite._store import Store

from kernel.abc import Queue, Topology

HOLDER = """
import sys, time
from pathlib import Path
from kernel_sqlite._reset_guard import ResetGuard
guard = ResetGuard(Path(sys.argv[1]), is_needed=True)
guard.take()
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("version", "affected"),
    [((3, 6, 23), False), ((3, 7, 0), True), ((3, 40, 1), True), ((3, 51, 2), True), ((3, 51, 3), False)],
)
def test_the_versions_that_have_the_bug_are_known(version: tuple[int, int, int], affected: bool) -> None:
    assert is_affected(version) is affected


def guards(path: Path) -> tuple[ResetGuard, ResetGuard]:
    return ResetGuard(path, is_needed=True), ResetGuard(path, is_needed=True)


def test_one_holds_it_and_another_waits_no_longer_than_it_said(path: Path) -> None:
    one, two = guards(path)
    one.take()
    with pytest.raises(sqlite3.OperationalError) as caught:
        two.take(0.01)
    one.release()
    two.take(0.01)

    assert is_busy(caught.value)
    assert (one.is_held, two.is_held) == (False, True)
    two.close()


def test_where_sqlite_needs_it_not_nothing_is_done(path: Path) -> None:
    guard = ResetGuard(path, is_needed=False)
    guard.take()

    assert not guard.is_held
    assert list(path.parent.iterdir()) == []


def test_a_process_that_is_killed_leaves_it(path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        guard = ResetGuard(path, is_needed=True)
        with pytest.raises(sqlite3.OperationalError):
            guard.take(0.01)
    finally:
        holder.kill()
        holder.communicate()
    guard.take(5.0)

    assert guard.is_held
    guard.close()


# --- whoever writes or checkpoints holds it -------------------------------------------------------------------------

WRITING = ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK", "PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.fixture
def access(path: Path) -> Iterator[tuple[Access, ResetGuard, list[tuple[str, bool]]]]:
    """An open file, the lock that it uses, and what was executed with or without it."""
    access = Access(path, "normal", 5.0, Store, SystemClock())
    access.use(create_or_open(path, synchronous="normal"))
    guard = access._reset_guard
    guard.is_needed = True
    seen: list[tuple[str, bool]] = []
    assert access._connection is not None
    access._connection.set_trace_callback(lambda text: seen.append((text, guard.is_held)))
    yield access, guard, seen
    access.close()


def test_what_writes_and_what_checkpoints_holds_it_and_nobody_else(
    access: tuple[Access, ResetGuard, list[tuple[str, bool]]],
) -> None:
    opened, guard, seen = access
    store = opened.begin(lambda: False)
    store.declare(Topology(queues=[Queue(name="q")]))
    store.send(Letter("a", "q", b"", "", "", "", "", 0, 0.0, None), exchange="", mandatory=True)
    opened.commit()
    after_commit = guard.is_held
    opened.begin(lambda: False)
    opened.rollback()
    after_rollback = guard.is_held
    opened.empty_log()

    assert {text for text, _ in seen} >= set(WRITING)
    assert [text for text, is_held in seen if text in WRITING and not is_held] == []
    assert (after_commit, after_rollback, guard.is_held) == (False, False, False)


def test_who_cannot_have_it_is_told_that_another_process_writes(
    access: tuple[Access, ResetGuard, list[tuple[str, bool]]], path: Path
) -> None:
    other = ResetGuard(path, is_needed=True)
    other.take()
    with pytest.raises(sqlite3.OperationalError) as caught:
        access[0].begin(lambda: True)
    other.close()

    assert is_busy(caught.value)
    assert access[0].begin(lambda: False) is not None
