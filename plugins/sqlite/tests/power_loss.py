"""A disk that loses power: a SQLite VFS that notes every write and sync, and what may be left of them.

A scenario runs once on a real disk and is noted. Then power is lost at any point of the notes: what was synced before
is there; of the later writes each is there, or not, or only some sectors of it, whatever their order was.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import attrs
from kernel_sqlite._file import create_or_open, open_existing
from kernel_sqlite._inspection import waiting_in
from kernel_sqlite._letter import Letter
from kernel_sqlite._store import Store

from kernel import Ack, DeadLetter, Outcome, Retry, Return
from kernel.abc import Queue, Topology

SECTOR = 512
State = frozenset[tuple[object, ...]]


# --- notes --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Write:
    file: str
    offset: int
    data: bytes


@attrs.frozen
class Truncate:
    file: str
    size: int


@attrs.frozen
class Sync:
    file: str


@attrs.frozen
class Committed:
    """The caller was told."""

    state: State


Note = Write | Truncate | Sync | Committed


class NotingFile(apsw.VFSFile):
    def __init__(self, vfs: str, name: Any, flags: list[int], notes: list[Note]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self.file = "wal" if path.endswith("-wal") else "db"
        self.notes = notes
        super().__init__(vfs, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  as SQLite calls it
        super().xWrite(data, offset)
        self.notes.append(Write(self.file, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802  as above
        super().xTruncate(newsize)
        self.notes.append(Truncate(self.file, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802  as above
        super().xSync(flags)
        self.notes.append(Sync(self.file))


class NotingVFS(apsw.VFS):
    def __init__(self, notes: list[Note]) -> None:
        self.notes = notes
        self.base = apsw.vfs_names()[0]
        super().__init__("noting", self.base)

    def xOpen(self, name: Any, flags: list[int]) -> NotingFile:  # noqa: N802  as above
        return NotingFile(self.base, name, flags, self.notes)


# --- the scenario -------------------------------------------------------------------------------------------------


@attrs.frozen
class Rows:
    rows: list[tuple[Any, ...]]
    rowcount: int
    lastrowid: int

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.rows

    def fetchone(self) -> tuple[Any, ...] | None:
        return self.rows[0] if self.rows else None


@attrs.define
class Connection:
    """As much of `sqlite3.Connection` as the store uses, over one of apsw."""

    inner: apsw.Connection

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Rows:
        rows = [tuple(row) for row in self.inner.execute(statement, tuple(parameters))]
        return Rows(rows, self.inner.changes(), self.inner.last_insert_rowid())

    @property
    def in_transaction(self) -> bool:
        return bool(self.inner.in_transaction)

    @property
    def total_changes(self) -> int:
        return int(self.inner.total_changes())


def state_of(connection: Any) -> State:
    """Return everything that matters: which message stands where, and how."""
    rows = connection.execute(
        "SELECT seq, queue, state, attempts, redelivered, place, holder, id, body, headers"
        " FROM kernel_entry JOIN kernel_content USING (seq)"
    ).fetchall()
    counts = connection.execute("SELECT name, waiting FROM kernel_queue").fetchall()
    return frozenset(tuple(row) for row in [*rows, *counts])


def play(folder: Path, operations: int, *, seed: int, synchronous: str) -> tuple[bytes, list[Note]]:
    """Run a scenario; returns the file as it was before, and the notes."""
    path = folder / "scenario.db"
    create_or_open(path, synchronous="full").connection.close()
    before = path.read_bytes()
    notes: list[Note] = []
    vfs = NotingVFS(notes)
    inner = apsw.Connection(str(path), vfs="noting")
    connection: Any = Connection(inner)
    # The log's index in memory instead of in a shared file; a log that is short, so that it is often written back.
    for pragma in ("locking_mode = EXCLUSIVE", f"synchronous = {synchronous}", "wal_autocheckpoint = 40"):
        connection.execute(f"PRAGMA {pragma}")
    store = Store(connection)
    chance = random.Random(seed)
    for number in range(operations):
        store.begin()
        act(store, chance, number)
        store.commit()
        notes.append(Committed(state_of(connection)))
    inner.close()
    vfs.unregister()
    return before, notes


def act(store: Store, chance: random.Random, number: int) -> None:
    if number == 0:
        store.declare(Topology(queues=[Queue(name="dead"), Queue(name="q", dead_letters="dead", max_length=60)]))
    elif chance.random() < 0.5:
        for part in range(chance.randrange(1, 6)):
            send(store, f"{number}.{part}", chance)
    else:
        for claim in store.claim("q", chance.randrange(1, 8)):
            outcomes: list[Outcome] = [Ack(), Ack(), Ack(), Retry(), Retry(1000.0), DeadLetter("bad"), Return()]
            store.settle(claim, chance.choice(outcomes))


def send(store: Store, name: str, chance: random.Random) -> None:
    waiting = {queue.spec.name: count for queue, count in waiting_in(store)}
    if waiting["q"] < 60:
        body = chance.randbytes(chance.choice([10, 200, 9000]))
        store.send(Letter(name, "q", body, "", "", "", "", 9, 0.0, None), exchange="", mandatory=True)


# --- the loss -----------------------------------------------------------------------------------------------------


@attrs.define
class Disk:
    """What is on the disk for certain, and what was written since."""

    synced: dict[str, bytearray]
    pending: dict[str, list[Write | Truncate]] = attrs.field(factory=lambda: {"db": [], "wal": []})

    def add(self, note: Note) -> None:
        match note:
            case Sync(file):
                for change in self.pending[file]:
                    apply(self.synced[file], change)
                self.pending[file].clear()
            case Write(file) | Truncate(file):
                self.pending[file].append(note)
            case Committed():
                pass

    def lose_power(self, chance: random.Random) -> dict[str, bytes]:
        """Return one of the many things that may be left of the files."""
        return {file: left_of(self.synced[file], self.pending[file], chance) for file in self.synced}


def left_of(synced: bytearray, pending: list[Write | Truncate], chance: random.Random) -> bytes:
    data = bytearray(synced)
    order = list(pending)
    if chance.random() < 0.5:
        chance.shuffle(order)
    kept = chance.choice([0.0, 0.2, 0.5, 0.8, 1.0])
    for change in order:
        if chance.random() >= kept:
            continue
        if isinstance(change, Write) and chance.random() < 0.3:
            tear(data, change, chance)
        else:
            apply(data, change)
    return bytes(data)


def tear(data: bytearray, write: Write, chance: random.Random) -> None:
    """Apply some sectors of a write."""
    for start in range(0, len(write.data), SECTOR):
        if chance.random() < 0.5:
            apply(data, Write(write.file, write.offset + start, write.data[start : start + SECTOR]))


def apply(data: bytearray, change: Write | Truncate) -> None:
    if isinstance(change, Truncate):
        del data[change.size :]
        return
    end = change.offset + len(change.data)
    data.extend(bytes(max(0, end - len(data))))
    data[change.offset : end] = change.data


def recovered(folder: Path, files: dict[str, bytes]) -> State:
    """Open what is left as a broker does, and return what is in it.

    Raises:
        AssertionError: if it is corrupted.
    """
    path = folder / "left.db"
    path.write_bytes(files["db"])
    Path(f"{path}-wal").write_bytes(files["wal"])
    with closing(open_existing(path, synchronous="normal").connection) as connection:
        (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
        assert integrity == "ok", integrity
        state = state_of(connection)
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    return state


def lose_power_everywhere(
    folder: Path, operations: int, *, step: int, seed: int, synchronous: str, keeps_all: bool
) -> int:
    """Lose power at every `step`th write and sync of a scenario; returns how often that was.

    Raises:
        AssertionError: if a file was corrupted, or is in a state in which it never was, or (if it is to keep all)
            lacks something that was confirmed.
    """
    before, notes = play(folder, operations, seed=seed, synchronous=synchronous)
    chance = random.Random(seed)
    disk = Disk({"db": bytearray(before), "wal": bytearray()})
    states: list[State] = [frozenset()]
    later = [note.state for note in notes if isinstance(note, Committed)]
    losses = 0
    for index, note in enumerate(notes):
        disk.add(note)
        if isinstance(note, Committed):
            states.append(later.pop(0))
        elif index % step == 0:
            losses += 1
            allowed = [*(states[-1:] if keeps_all else states), *later[:1]]
            assert recovered(folder, disk.lose_power(chance)) in allowed, f"after note {index}: {note!r:.60}"
    return losses
