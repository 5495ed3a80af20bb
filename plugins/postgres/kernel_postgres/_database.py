"""What workers get: statements, connections, transactions and notifications of one database."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import Any, Final, TypeVar, final

import attrs
import psycopg
import trio
from psycopg import Notify, sql
from psycopg.rows import AsyncRowFactory, class_row, tuple_row
from typing_extensions import override

from kernel.abc import Lease, Leasing, Transactional, check_lease_name
from kernel.errors import UnavailableError

from ._config import PostgresConfig
from ._connection import TrioConnection
from ._events import PoolMeasured
from ._lease import DatabaseLease
from ._pool import Pool
from ._tables import CREATE, FORGET
from ._transaction import DatabaseTransaction, Isolation, Parameters, open_transaction, run

RowT = TypeVar("RowT")

_FORGET_INTERVAL: Final = 600.0
"""Seconds between two removals of ids that need not be remembered any more."""


@final
@attrs.define(eq=False)
class Database(Transactional, Leasing):
    """One database of PostgreSQL. Safe to share between tasks.

    Errors of statements are psycopg's. Every method raises `UnavailableError` if no connection can be had within
    `acquire_timeout`, and every method that waits ends its statement on the server when it is cancelled.
    """

    _pool: Pool = attrs.field(repr=False)
    _config: PostgresConfig = attrs.field(repr=False)
    _connect: Callable[[], Awaitable[TrioConnection]] = attrs.field(repr=False)
    _in_transaction: set[trio.lowlevel.Task] = attrs.field(factory=set[trio.lowlevel.Task], init=False, repr=False)
    _written: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)

    # --- one statement ----------------------------------------------------------------------------------------

    async def execute(self, statement: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Run one statement in a transaction of its own; return its rows as tuples.

        Args:
            statement: With psycopg's placeholders, `%s` or `%(name)s`.
            parameters: For them.

        Raises:
            psycopg.Error: what the server says of it.
            RuntimeError: if the task has a transaction open: it would not be part of it.

        Cancellation: Is a checkpoint. If cancelled, it happened, or it did not.
        """
        return await self._run(statement, parameters, tuple_row)

    async def fetch(self, statement: str, parameters: Parameters = (), *, into: type[RowT]) -> list[RowT]:
        """Do the same, and return the rows as objects of a class, whose parameters are called like the columns."""
        return await self._run(statement, parameters, class_row(into))

    async def _run(self, statement: str, parameters: Parameters, rows: AsyncRowFactory[RowT]) -> list[RowT]:
        self._check_task()
        seat = await self._pool.take()
        try:
            return await run(seat.connection, statement, parameters, rows)
        finally:
            await self._pool.give_back(seat)  # noqa: ASYNC102  it shields what it waits for

    @override
    def lease(self, name: str) -> Lease:
        return DatabaseLease(self.execute, check_lease_name(name))

    # --- several ----------------------------------------------------------------------------------------------

    def connection(self) -> AbstractAsyncContextManager[TrioConnection]:
        """Have a connection while inside, with all that psycopg offers: COPY, pipelines, cursors on the server.

        Each statement is a transaction unless one is open. What is open on exit is undone. Settings of the session
        stay with the connection, for whoever has it next: use `SET LOCAL`.

        Cancellation: Is a checkpoint on entry.
        """
        return self._pool.seat()

    @override
    def transaction(
        self, *, isolation: Isolation | None = None, read_only: bool = False
    ) -> AbstractAsyncContextManager[DatabaseTransaction]:
        """Begin a transaction on entry; commit it on a clean exit, and undo it if the body raises.

        Args:
            isolation: None for what the database has set, usually "read committed".
            read_only: Whether it may write.

        Raises and Cancellation: As `kernel.abc.Transactional`; what the server refuses at the commit, such as a
            transaction that cannot be serialized, is psycopg's error. `psycopg.errors.InFailedSqlTransaction` on exit
            if a statement failed and its error was caught, since the server keeps nothing of such a transaction;
            `ValueError` for an isolation that there is not.
        """
        return self._transaction(isolation, read_only=read_only)

    @asynccontextmanager
    async def _transaction(
        self, isolation: Isolation | None, *, read_only: bool
    ) -> AsyncGenerator[DatabaseTransaction]:
        self._check_task()
        task = trio.lowlevel.current_task()
        async with self._pool.seat() as connection:
            self._in_transaction.add(task)
            try:
                async with open_transaction(
                    connection,
                    isolation=isolation,
                    read_only=read_only,
                    carries_messages=self._config.outbox,
                    on_commit=self._tell_written,
                ) as transaction:
                    yield transaction
            finally:
                self._in_transaction.discard(task)

    def _check_task(self) -> None:
        if trio.lowlevel.current_task() in self._in_transaction:
            raise RuntimeError("a transaction is open in this task: use the transaction")

    # --- notifications ----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def listen(self, *channels: str) -> AsyncGenerator[AsyncIterator[Notify]]:
        """Listen to channels while inside, on a connection that is not of the pool.

        What is sent from the entry on is received. Each notification has `channel`, `payload` and `pid`.

        Raises:
            UnavailableError: on entry, if no connection can be made; while inside, when the connection breaks. What
                was sent since then is lost: listen again, and then look at what the notifications are about.

        Cancellation: Is a checkpoint on entry; so is each step of the iterator. If that is cancelled, nothing is
            lost that the next step does not return.
        """
        try:
            with trio.fail_after(self._config.connect_timeout):
                connection = await self._connect()
        except (psycopg.OperationalError, trio.TooSlowError) as error:
            told = str(error) or f"none within connect_timeout = {self._config.connect_timeout:g} s"
            raise UnavailableError(f"no connection to listen on: {told}") from error
        try:
            for channel in channels:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            yield Notifications(connection)
        finally:
            connection.abort()

    # --- for the driver and the relay -------------------------------------------------------------------------

    def measured(self) -> PoolMeasured:
        """Return how the pool is used at this moment."""
        return self._pool.measured()

    async def prepare(self) -> None:
        """Make the tables of the outbox, if there are none.

        Cancellation: Is a checkpoint.
        """
        async with self._pool.seat() as connection:
            await connection.execute(CREATE.encode())

    async def forget(self) -> None:
        """Remove ids that need not be remembered any more, again and again; never returns."""
        while True:
            with suppress(psycopg.Error, UnavailableError):  # the pool tells if the server is away; next time will do
                await self.execute(FORGET, [self._config.once_retention])
            await trio.sleep(_FORGET_INTERVAL)

    async def wait_written(self) -> None:
        """Wait until a transaction of this process has committed messages.

        Cancellation: Is a checkpoint.
        """
        await self._written.wait()

    def _tell_written(self) -> None:
        self._written.set()
        self._written = trio.Event()


@final
@attrs.define(eq=False, repr=False)
class Notifications(AsyncIterator[Notify]):
    """What a connection that listens receives, without end."""

    _connection: TrioConnection
    _received: deque[Notify] = attrs.field(factory=deque[Notify], init=False)
    """Came together with one that was returned."""

    @override
    async def __anext__(self) -> Notify:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._received:
            try:
                async with aclosing(self._connection.notifies(stop_after=1)) as notifications:
                    async for notification in notifications:
                        self._received.append(notification)
            except psycopg.OperationalError as error:
                raise UnavailableError(f"the connection broke that listened: {error}") from error
        return self._received.popleft()  # noqa: ASYNC910  what has come need not be waited for
