"""Where messages stand: what makes them wait, go on, make room and end. One transaction's worth of consequences."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any, final

import attrs

from kernel import Envelope
from kernel.abc import death_headers
from kernel.errors import QueueFullError

from ._catalog import Catalog, StoredQueue
from ._entries import Entries
from ._lanes import Lanes, key_of
from ._letter import Letter
from ._schema import BEHIND, DELAYED, READY
from ._upkeep import Upkeep


@final
@attrs.frozen
class Drop:
    """A message that ended and nobody has it."""

    queue: str
    reason: str
    message_id: str
    subject: str


@final
@attrs.define(eq=False, repr=False)
class Effects:
    """What the transaction does that others must hear of when it is committed."""

    ready: set[str] = attrs.field(factory=set[str])
    """Queues in which something can be taken that could not before."""
    drops: list[Drop] = attrs.field(factory=list[Drop])
    has_written: bool = False
    """Whether anything was written: only then has the file shown that it takes something."""
    is_foreign: bool = False
    """Whether another process has written since the last transaction: any queue may have become ready."""


@final
@attrs.define(eq=False, repr=False)
class Shelves:
    """The messages of all queues, inside a transaction of somebody else."""

    connection: sqlite3.Connection
    catalog: Catalog
    upkeep: Upkeep
    clock: Callable[[], float]
    entries: Entries = attrs.field(
        init=False, default=attrs.Factory(lambda self: Entries(self.connection), takes_self=True)
    )
    lanes: Lanes = attrs.field(init=False, default=attrs.Factory(lambda self: Lanes(self.connection), takes_self=True))
    effects: Effects = attrs.field(factory=Effects, init=False)

    def put(self, queue: StoredQueue, letter: Letter) -> None:
        """Have a message wait in a queue."""
        now, seq = self.clock(), self.entries.next_number()
        self.catalog.shift(queue, 1)
        if letter.delay > 0:
            self.entries.add(seq, queue.id, letter, state=DELAYED, due=now + letter.delay)
            self.upkeep.expect(now + letter.delay)
            return
        expires = _end_of(queue, letter.deadline, now)
        key, state = self._admit(queue, seq, letter) if queue.spec.partition_by else (None, READY)
        self.entries.add(seq, queue.id, letter, state=state, expires=expires, key=key)
        self.upkeep.expect(expires)
        self.effects.ready.add(queue.spec.name)

    def put_plain(self, queue: StoredQueue, letter: Letter) -> bool:
        """Have a message without a delay wait in a queue, if that has no rules, and room; return whether it does."""
        if not queue.is_plain or not self.catalog.takes_one(queue):
            return False
        self.entries.add_ready(queue.id, letter)
        if letter.deadline is not None:
            self.upkeep.expect(letter.deadline)
        self.effects.ready.add(queue.spec.name)
        return True

    def put_last(self, queue: StoredQueue, seq: int, deadline: float | None) -> None:
        """Make an entry ready whose delay is over or that is tried again; the first of its key stays that."""
        key, state = None, READY
        if queue.spec.partition_by and (letter := self.entries.letter(seq)) is not None:
            key, state = self._admit(queue, seq, letter)
        expires = _end_of(queue, deadline, self.clock())
        self.entries.put_last(seq, state=state, expires=expires, key=key)
        self.upkeep.expect(expires)
        self.effects.ready.add(queue.spec.name)

    def became_ready(self, queue: StoredQueue, count: int) -> None:
        """Count messages that are ready in a queue, and say so."""
        self.catalog.shift(queue, count)
        self.effects.ready.add(queue.spec.name)

    def advance(self, queue: StoredQueue, key: str | None, seq: int) -> None:
        """Let the next of a key go on, now that an entry has ended."""
        if key is None:
            return
        self.entries.flush()
        if self.lanes.advance(queue.id, key, seq) is not None:
            self.effects.ready.add(queue.spec.name)

    def make_room(self, queues: list[StoredQueue], size: int) -> None:
        """Drop the oldest of those queues that have no room for one more message.

        Args:
            queues: That may have none.
            size: Bytes of the body that is to come.

        Raises:
            QueueFullError: if one of them refuses instead; then nothing was dropped.
        """
        full = [queue for queue in queues if self.lack(queue, size)]
        for queue in full:
            if queue.spec.overflow == "refuse" or (queue.most_bytes is not None and size > queue.most_bytes):
                raise QueueFullError(f'queue "{queue.spec.name}" is full: {self.lack(queue, size)}')
        for queue in full:
            while self.lack(queue, size) and (oldest := self.entries.oldest(queue.id)) is not None:
                self.catalog.shift(queue, -1)
                self.bury(queue, oldest.seq, "overflow", oldest.attempts, oldest.key)

    def lack(self, queue: StoredQueue, size: int) -> str:
        """Return what a queue has no room for one more message for; empty if it has room."""
        if self.catalog.waiting(queue) >= queue.limit:
            return f"it holds {queue.limit} messages"
        if queue.most_bytes is None:
            return ""
        self.entries.flush()
        if (held := self.catalog.sizes.bytes_in(queue.id)) + size <= queue.most_bytes:
            return ""
        return f"it holds {held} of at most {queue.most_bytes} bytes, and {size} were to come"

    def lapse(self, queue: StoredQueue, seq: int, attempts: int, key: str | None) -> None:
        """Put an entry aside that waited for too long."""
        self.catalog.shift(queue, -1)
        self.bury(queue, seq, "expired", attempts, key)

    def bury(self, queue: StoredQueue, seq: int, reason: str, attempts: int, key: str | None) -> None:
        """Put an entry that does not count any more in its queue into the dead letters, which never refuse."""
        letter = self.entries.letter(seq)
        grave = self.catalog.find(queue.spec.dead_letters)
        if letter is not None and grave is not None:
            headers = _death_headers(letter, reason=reason, queue=queue.spec.name, attempts=attempts)
            self.move(grave, seq, letter._replace(headers=headers))
        elif letter is not None:
            self.entries.remove(seq)
            self.drop(letter, queue=queue.spec.name, reason=reason)
        self.advance(queue, key, seq)

    def drop(self, letter: Letter, *, queue: str, reason: str) -> None:
        """Say that a message ended and nobody has it."""
        self.effects.drops.append(Drop(queue, reason, letter.id, letter.subject))

    def is_repeated(self, queue: StoredQueue, letter: Letter) -> bool:
        """Return whether a queue has taken a message of that id already, and say so."""
        if not queue.spec.deduplication_window:
            return False
        row = self.connection.execute(
            "SELECT 1 FROM kernel_seen WHERE queue = ? AND id = ? AND until > ?", (queue.id, letter.id, self.clock())
        ).fetchone()
        if row is not None:
            self.drop(letter, queue=queue.spec.name, reason="duplicate")
        return row is not None

    def remember(self, queue: StoredQueue, letter: Letter) -> None:
        """Remember the id of a message, if the queue has a window."""
        if window := queue.spec.deduplication_window:
            self.connection.execute(
                "INSERT OR REPLACE INTO kernel_seen VALUES (?, ?, ?)", (queue.id, letter.id, self.clock() + window)
            )

    def _admit(self, queue: StoredQueue, seq: int, letter: Letter) -> tuple[str | None, int]:
        """Return the key of an entry that comes to wait, and the state that this gives it."""
        key = key_of(letter, queue.spec.partition_by)
        is_first = key is None or self.lanes.admit(queue.id, key, seq)
        return key, READY if is_first else BEHIND

    def move(self, grave: StoredQueue, seq: int, letter: Letter) -> None:
        """Make an entry that does not count any more in its queue the last of another, which never refuses."""
        while self.lack(grave, len(letter.body)) and self._drop_oldest(grave):
            pass
        key, state = self._admit(grave, seq, letter)
        expires = _end_of(grave, None, self.clock())
        self.entries.move(seq, grave.id, state=state, headers=letter.headers, expires=expires, key=key)
        self.upkeep.expect(expires)
        self.became_ready(grave, 1)

    def _drop_oldest(self, queue: StoredQueue) -> bool:
        oldest = self.entries.oldest(queue.id)
        letter = None if oldest is None else self.entries.letter(oldest.seq)
        if oldest is None or letter is None:
            return False
        self.entries.remove(oldest.seq)
        self.catalog.shift(queue, -1)
        self.drop(letter, queue=queue.spec.name, reason="overflow")
        self.advance(queue, oldest.key, oldest.seq)
        return True


def _end_of(queue: StoredQueue, deadline: float | None, now: float) -> float | None:
    """Return when the life of a message ends that becomes ready now."""
    if queue.spec.ttl is None:
        return deadline
    end = now + queue.spec.ttl
    return end if deadline is None else min(end, deadline)


def _death_headers(letter: Letter, *, reason: str, queue: str, attempts: int) -> str:
    headers: dict[str, Any] = json.loads(letter.headers) if letter.headers else {}
    envelope = Envelope(subject=letter.subject, headers=headers, id=letter.id)
    return json.dumps(death_headers(envelope, reason=reason, queue=queue, attempts=attempts))
