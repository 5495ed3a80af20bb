"""What can be done with the file: every way of a message, synchronous, on one connection.

`begin`, any number of operations, `commit`. An operation that refuses raises before it has changed anything, so the
others of its transaction are not hurt. Knows neither threads nor trio.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, assert_never, final

import attrs

from kernel import Ack, DeadLetter, Outcome, Retry, Return
from kernel.abc import Topology
from kernel.errors import ConflictError, QueueFullError, UnavailableError, UnknownOutcomeError, UnroutableError

from ._catalog import Catalog, StoredQueue
from ._letter import Claim, Letter
from ._reset_guard import ResetGuard
from ._shelves import Effects, Shelves
from ._upkeep import Upkeep

Clock = Callable[[], float]


_AHEAD: Final = 1000
"""Numbers that a process takes at a time: what it does not use is lost, and most transactions write a page less."""
RECOVERY_PAUSE: Final = 1.0
"""Seconds before a message comes again whose outcome could not be noted."""


@final
@attrs.define(eq=False, repr=False)
class Store:
    """The queues of one file, over a connection in autocommit mode that nobody else uses."""

    _connection: sqlite3.Connection
    reset_guard: ResetGuard | None = attrs.field(default=None, kw_only=True)
    """Held from the beginning of each transaction to its end; None for one that nobody else uses."""
    lease: float = attrs.field(default=30.0, kw_only=True)
    max_length: int = attrs.field(default=1_000_000, kw_only=True)
    once_retention: float = attrs.field(default=604_800.0, kw_only=True)
    # Of the wall: it is the only clock that processes share, and that goes on when none of them runs.
    clock: Clock = attrs.field(default=time.time, kw_only=True)
    shelves: Shelves = attrs.field(init=False)
    _version: int | None = attrs.field(default=None, init=False)
    """`data_version` that everything in memory belongs to."""
    _changes: int = attrs.field(default=0, init=False)
    _allowed: int = attrs.field(default=0, init=False)
    """The greatest number that the file allows us."""

    def __attrs_post_init__(self) -> None:
        catalog = Catalog(self._connection, self.max_length)
        self.shelves = Shelves(self._connection, catalog, Upkeep(self._connection, self.lease), self.clock)

    @property
    def holder(self) -> int | None:
        """Under which number this process holds its claims; None if it holds none."""
        return self.shelves.upkeep.holder

    # --- transactions ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a transaction; nobody else writes until it ends.

        Raises:
            sqlite3.OperationalError: if another process writes for too long (SQLITE_BUSY), or the file is at fault.
        """
        if self.reset_guard is not None:
            self.reset_guard.take()
        self._connection.execute("BEGIN IMMEDIATE")
        self._changes = self._connection.total_changes
        if (version := self._data_version()) != self._version:
            self._refresh(version)

    @property
    def is_open(self) -> bool:
        """Whether there is a transaction: some errors end it."""
        return self._connection.in_transaction

    def flush(self) -> None:
        """Have SQLite know the messages that were sent so far."""
        self.shelves.entries.flush()

    def prepare(self) -> None:
        """Have SQLite know all that the transaction did, so that only the commit itself is left."""
        self.shelves.entries.flush()
        self.shelves.catalog.flush()
        if self.shelves.entries.last > self._allowed:
            self._allowed = self.shelves.entries.last + _AHEAD
            self._connection.execute("UPDATE kernel_meta SET last = ?", (self._allowed,))

    def commit(self) -> Effects:
        """Make the transaction last; returns what others must hear of."""
        self.prepare()
        self._connection.execute("COMMIT")  # and the checkpoint that is due, within the same call
        self._let_others()
        effects, self.shelves.effects = self.shelves.effects, Effects()
        effects.has_written = self._connection.total_changes != self._changes
        return effects

    def rollback(self) -> None:
        """Undo the transaction, if there is one, and forget all that was believed."""
        self.shelves.entries.forget()
        self.shelves.effects = Effects()
        self._version = None
        self.shelves.catalog.version = -1
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        finally:
            self._let_others()

    def _let_others(self) -> None:
        if self.reset_guard is not None:
            self.reset_guard.release()

    def has_changed(self) -> bool:
        """Return whether another process has written since the last transaction."""
        return self._data_version() != self._version

    def adopt(self, holder: int | None) -> None:
        """Go on with the claims of an earlier connection of this process."""
        self.shelves.upkeep.holder = holder

    def next_time(self) -> float:
        """Return when `upkeep` has something to do, in seconds since 1970; infinite if never."""
        return self.shelves.upkeep.next_time()

    # --- topology -------------------------------------------------------------------------------------------------

    def declare(self, topology: Topology) -> None:
        """Make a topology exist: all of it, or nothing.

        Raises:
            ConflictError: naming what is refused, and why.
        """
        self.shelves.entries.flush()
        is_owner = any(queue.exclusive for queue in topology.queues)
        self.shelves.catalog.declare(topology, owner=self.shelves.upkeep.hold(self.clock()) if is_owner else None)

    def join(self, name: str) -> bool:
        """Return whether a queue that somebody wants to consume from is exclusive.

        Raises:
            ConflictError: if there is no such queue, or it is exclusive and of another process.
        """
        queue = self.shelves.catalog.need(name)
        if not self._is_ours(queue):
            raise ConflictError(f'queue "{name}" is exclusive, and of another process')
        return queue.spec.exclusive

    def leave(self, name: str) -> None:
        """Take note that an exclusive queue has lost its consumer: it goes away."""
        queue = self.shelves.catalog.find(name)
        if queue is not None and queue.spec.exclusive:
            self.shelves.entries.flush()
            self.shelves.catalog.remove(queue)

    # --- messages -------------------------------------------------------------------------------------------------

    def send(self, letter: Letter, *, exchange: str, mandatory: bool) -> None:
        """Give every queue that is bound a copy, or none of them.

        Raises:
            UnroutableError: if there is no such exchange; or if mandatory, and no queue is bound.
            QueueFullError: if a queue that refuses is full.
        """
        shelves = self.shelves
        queues = shelves.catalog.route(letter.subject, exchange)
        if len(queues) == 1 and letter.delay <= 0 and shelves.put_plain(queues[0], letter):
            return  # as nearly every message is
        if mandatory and not queues:
            raise UnroutableError.naming(letter.subject, exchange=exchange)
        fresh = [queue for queue in queues if not self.shelves.is_repeated(queue, letter)]
        waiting = self.shelves.catalog.waiting
        if tight := [queue for queue in fresh if queue.most_bytes is not None or waiting(queue) >= queue.limit]:
            self.shelves.make_room(tight, len(letter.body))
        for queue in fresh:
            self.shelves.remember(queue, letter)
            self.shelves.put(queue, letter)

    def claim(self, name: str, limit: int) -> list[Claim]:
        """Take the next messages of a queue, at most `limit`; their attempts are counted.

        Raises:
            ConflictError: if the queue is gone.
            UnavailableError: if it is exclusive and not of this process any more.
        """
        queue = self.shelves.catalog.need(name)
        if not self._is_ours(queue):
            raise UnavailableError(f'queue "{name}" was lost with the lease of this process')
        while self.shelves.catalog.waiting(queue):
            found = self.shelves.entries.first_ready(queue.id, limit)
            alive = [claim for claim in found if not self._is_over(claim)]
            for claim in found:
                if self._is_over(claim):
                    self.shelves.lapse(queue, claim.seq, claim.attempt - 1, claim.key)
            if alive:
                return self._take(queue, alive)
            if not found:
                break
        return []

    def settle(self, claim: Claim, outcome: Outcome, reply: Letter | None = None, exchange: str = "") -> None:
        """Do what an outcome says; a reply is sent in the same transaction, to an exchange or straight to its queue.

        Raises:
            UnknownOutcomeError: if the claim is not of this process any more: somebody else may have the message.
        """
        if claim.holder != self.shelves.upkeep.holder:
            raise UnknownOutcomeError(f"the lease of delivery {claim.letter.id} was lost: it is delivered again")
        match outcome:
            case Ack():
                self._answer(reply, exchange)
                self.shelves.entries.remove(claim.seq)
                self._next_of_key(claim)
            case Retry(after):
                self._again(claim, after)
            case DeadLetter(reason):
                self._put_aside(claim, reason)
            case Return():
                self.give_back([claim], redelivered=True)
            case _:
                assert_never(outcome)

    def give_back(self, claims: Sequence[Claim], *, redelivered: bool) -> None:
        """Put claims back to where they stood, their attempts not counted; those that were lost are left alone."""
        self.shelves.entries.flush()
        for number in {claim.queue for claim in claims}:
            mine = [claim for claim in claims if claim.queue == number and claim.holder == self.shelves.upkeep.holder]
            queue = self.shelves.catalog.by_id(number)
            if queue is not None:
                self.shelves.entries.put_back([claim.seq for claim in mine], redelivered=redelivered)
                self.shelves.became_ready(queue, len(mine))
                continue
            for claim in mine:
                self.shelves.drop(claim.letter, queue=f"#{number}", reason="its queue is gone")

    def recover(self, claim: Claim) -> None:
        """Make a claim that could not be settled ready again in a while, its attempt counted; nothing if it was."""
        if claim.holder == self.shelves.upkeep.holder and self.shelves.entries.recover(claim):
            self._again(claim, RECOVERY_PAUSE)

    def discard(self, claim: Claim, reason: str) -> None:
        """Remove a claim that nothing can be done with, and say so."""
        if claim.holder == self.shelves.upkeep.holder and self.shelves.entries.recover(claim):
            queue = self.shelves.catalog.by_id(claim.queue)
            self.shelves.drop(claim.letter, queue=queue.spec.name if queue else f"#{claim.queue}", reason=reason)
            self.shelves.entries.remove(claim.seq)
            self._next_of_key(claim)

    def probe(self) -> None:
        """Write something, to see whether the file takes it."""
        self._connection.execute("UPDATE kernel_meta SET one = one")

    def expire(self, claim: Claim) -> None:
        """Put a claim aside whose time was over before anybody began with it; the attempt does not count."""
        if claim.holder == self.shelves.upkeep.holder:
            self._put_aside(claim._replace(attempt=claim.attempt - 1), "expired")

    def peek(self, name: str, limit: int) -> list[Claim]:
        """Return the first messages of a queue; `holder` is 0, and nothing is taken.

        Raises:
            ConflictError: if there is no such queue.
        """
        queue = self.shelves.catalog.need(name)
        found = self.shelves.entries.first_ready(queue.id, limit)
        if queue.spec.partition_by and len(found) < limit:
            found += self.shelves.entries.first_behind(queue.id, limit - len(found))
        return [claim for claim in found if not self._is_over(claim)]

    # --- upkeep ---------------------------------------------------------------------------------------------------

    def upkeep(self) -> None:
        """Do what time asks for: end delays and lives, renew our own lease, and end those of dead processes."""
        now = self.clock()
        self.shelves.entries.flush()
        for seq, number, deadline in self.shelves.upkeep.ended_delays(now):
            if queue := self.shelves.catalog.by_id(number):
                self.shelves.put_last(queue, seq, deadline)
        for seq, number, attempts, key in self.shelves.upkeep.ended_lives(now):
            if queue := self.shelves.catalog.by_id(number):
                self.shelves.lapse(queue, seq, attempts, key)
        self.shelves.upkeep.renew(now)
        for holder in self.shelves.upkeep.dead_holders(now):
            self._release(holder)
        self.shelves.upkeep.clean(now)

    def close(self) -> None:
        """End our own lease: what is claimed goes back, exclusive queues go away."""
        if self.shelves.upkeep.holder is not None:
            self._release(self.shelves.upkeep.holder)

    # --- a worker's own transaction -------------------------------------------------------------------------------

    def execute(self, sql: str, parameters: Sequence[object] | Mapping[str, object]) -> list[tuple[object, ...]]:
        """Run a statement of somebody else's, for whom `flush` was called; a guard sees what it touches."""
        rows: list[tuple[object, ...]] = self._connection.execute(sql, parameters).fetchall()
        return rows

    def once(self, message_id: str, scope: str) -> bool:
        """Remember an id; returns False if it was remembered already."""
        until = self.clock() + self.once_retention
        done = self._connection.execute(
            "INSERT OR IGNORE INTO kernel_once VALUES (?, ?, ?)", (scope, message_id, until)
        )
        return done.rowcount == 1

    # --- inside ---------------------------------------------------------------------------------------------------

    def _data_version(self) -> int:
        row: tuple[int] = self._connection.execute("PRAGMA data_version").fetchone()
        return row[0]

    def _refresh(self, version: int) -> None:
        last, topology = self._connection.execute("SELECT last, topology FROM kernel_meta").fetchone()
        self.shelves.entries.last = self._allowed = last
        self.shelves.catalog.refresh(topology)
        self.shelves.upkeep.refresh()
        self.shelves.effects.is_foreign = True
        self._version = version

    def _is_ours(self, queue: StoredQueue) -> bool:
        return not queue.spec.exclusive or queue.owner == self.shelves.upkeep.holder

    def _next_of_key(self, claim: Claim) -> None:
        queue = self.shelves.catalog.by_id(claim.queue) if claim.key is not None else None
        if queue is not None:
            self.shelves.advance(queue, claim.key, claim.seq)

    def _is_over(self, claim: Claim) -> bool:
        return claim.expires is not None and claim.expires <= self.clock()

    def _take(self, queue: StoredQueue, claims: Sequence[Claim]) -> list[Claim]:
        holder = self.shelves.upkeep.hold(self.clock())
        self.shelves.entries.take([claim.seq for claim in claims], holder)
        self.shelves.catalog.shift(queue, -len(claims))
        return [claim._replace(holder=holder) for claim in claims]

    def _again(self, claim: Claim, after: float) -> None:
        queue = self.shelves.catalog.by_id(claim.queue)
        now = self.clock()
        if queue is None:
            self.shelves.drop(claim.letter, queue=f"#{claim.queue}", reason="its queue is gone")
        elif after > 0:
            self.shelves.entries.put_later(claim.seq, due=now + after)
            self.shelves.upkeep.expect(now + after)
            self.shelves.catalog.shift(queue, 1)
        else:
            self.shelves.put_last(queue, claim.seq, claim.letter.deadline)
            self.shelves.catalog.shift(queue, 1)

    def _answer(self, reply: Letter | None, exchange: str) -> None:
        if reply is None:
            return
        try:
            self.send(reply, exchange=exchange, mandatory=True)
        except (UnroutableError, QueueFullError) as error:
            self.shelves.drop(reply, queue=reply.subject, reason=f"no way to answer: {error}")

    def _put_aside(self, claim: Claim, reason: str) -> None:
        queue = self.shelves.catalog.by_id(claim.queue)
        if queue is None:
            self.shelves.drop(claim.letter, queue=f"#{claim.queue}", reason=reason)
        else:
            self.shelves.entries.flush()
            self.shelves.bury(queue, claim.seq, reason, claim.attempt, claim.key)

    def _release(self, holder: int) -> None:
        self.shelves.entries.flush()
        for number, count in self.shelves.upkeep.release(holder):
            queue = self.shelves.catalog.by_id(number)
            if queue is not None:
                self.shelves.became_ready(queue, count)
        for queue in [queue for queue in self.shelves.catalog.queues if queue.owner == holder]:
            self.shelves.catalog.remove(queue)
