"""A worker's own transaction: its writes, its messages and the ids that it has handled, all or nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, TypeVar, final

import attrs
import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import AsyncRowFactory, class_row, tuple_row
from typing_extensions import override

from kernel import Envelope
from kernel.abc import Transaction, check_envelope
from kernel.errors import StorageError, StorageFullError, UnavailableError, UnknownOutcomeError

from ._connection import TrioConnection
from ._tables import ONCE, SEND, written

RowT = TypeVar("RowT")
Isolation = Literal["read committed", "repeatable read", "serializable"]
Parameters = Sequence[object] | Mapping[str, object]

_BEGIN: Final[Mapping[str, str]] = {
    "read committed": "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "repeatable read": "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "serializable": "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
}


@final
@attrs.define(eq=False, repr=False)
class DatabaseTransaction(Transaction):
    """One transaction, for one task at a time."""

    connection: TrioConnection
    """For what psycopg offers beyond statements: COPY, cursors on the server, pipelines, and with
    `connection.transaction()` savepoints."""
    _carries_messages: bool
    _on_commit: Callable[[], object]
    _is_over: bool = attrs.field(default=False, init=False)
    _sends: bool = attrs.field(default=False, init=False)

    @override
    async def execute(self, statement: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        return await self._run(statement, parameters, tuple_row)

    async def fetch(self, statement: str, parameters: Parameters = (), *, into: type[RowT]) -> list[RowT]:
        """Run one statement and return its rows as objects of a class, whose parameters are called like its columns.

        Raises and Cancellation: As `execute`.
        """
        return await self._run(statement, parameters, class_row(into))

    @override
    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = True) -> None:
        """Write a message into the outbox; a relay sends it when the transaction is committed.

        Whether a queue takes it turns out then: the errors of sending are never raised here, but told by the relay,
        which keeps the message and is degraded. With `mandatory=False` one that no queue gets is dropped.

        Raises:
            EncodeError, ValueError: if no broker could carry it (`check_envelope`). Nothing was written.
        """
        self._check_messages()
        check_envelope(envelope)
        await self.execute(SEND, written(envelope, exchange=exchange, mandatory=mandatory))
        self._sends = True

    @override
    async def once(self, message_id: str, *, scope: str = "") -> bool:
        """Remember an id. Waits for another transaction that has the same one open, and sees how it ends."""
        self._check_messages()
        return bool(await self.execute(ONCE, (scope, message_id)))

    def _check_messages(self) -> None:
        if not self._carries_messages:
            raise RuntimeError(
                "the table of the driver must say `outbox = true` for transactions to carry messages, and to remember ids"
            )

    async def _run(self, statement: str, parameters: Parameters, rows: AsyncRowFactory[RowT]) -> list[RowT]:
        if self._is_over or self.connection.closed:
            raise UnavailableError("the transaction is over")
        return await run(self.connection, statement, parameters, rows)

    def end(self, *, committed: bool) -> None:
        """Note that it is over."""
        self._is_over = True
        if committed and self._sends:
            self._on_commit()


async def run(
    connection: TrioConnection, statement: str, parameters: Parameters, rows: AsyncRowFactory[RowT]
) -> list[RowT]:
    """Run one statement and return its rows, none if it has none.

    Cancellation: Is a checkpoint.
    """
    cursor = connection.cursor(row_factory=rows)
    # A statement is what the caller has written; psycopg wants to see that it is no input of a user's.
    await cursor.execute(statement.encode(), parameters or None)
    return await cursor.fetchall() if cursor.pgresult is not None and cursor.pgresult.nfields else []


@asynccontextmanager
async def open_transaction(
    connection: TrioConnection,
    *,
    isolation: Isolation | None,
    read_only: bool,
    carries_messages: bool,
    on_commit: Callable[[], object],
) -> AsyncGenerator[DatabaseTransaction]:
    """Begin a transaction on a connection; commit it on a clean exit.

    Raises:
        As `kernel.abc.Transactional.transaction`.
    """
    if isolation is not None and isolation not in _BEGIN:
        raise ValueError(f"isolation must be one of {', '.join(map(repr, _BEGIN))}, not {isolation!r}")
    transaction = DatabaseTransaction(connection, carries_messages, on_commit)
    reached_end = False
    try:
        async with connection.transaction():
            if isolation is not None:
                await connection.execute(_BEGIN[isolation].encode())
            if read_only:
                await connection.execute("SET TRANSACTION READ ONLY")
            yield transaction
            _expect_open(connection)
            reached_end = True
    except psycopg.Error as error:
        if reached_end:
            raise _of_commit(error, connection) from error
        raise
    finally:
        transaction.end(committed=reached_end)


def _expect_open(connection: TrioConnection) -> None:
    """Raise if there is nothing that a commit could keep: to COMMIT the server would answer ROLLBACK, and no error."""
    status = connection.info.transaction_status
    if status is TransactionStatus.INERROR:
        raise psycopg.errors.InFailedSqlTransaction(
            "a statement failed in this transaction, so that all of it is undone, though the error was caught: where one"
            " may fail, put it into `async with transaction.connection.transaction()`, which is a savepoint"
        )
    if status is TransactionStatus.IDLE:
        raise psycopg.ProgrammingError(
            "a statement ended this transaction, such as COMMIT or ROLLBACK: leave its block instead, or raise"
        )


def _of_commit(error: psycopg.Error, connection: TrioConnection) -> Exception:
    """Return what a commit that failed means; what the server refuses for what is in it stays psycopg's."""
    if isinstance(error, psycopg.errors.DiskFull):
        return StorageFullError(f"nothing was committed: {error}")
    if isinstance(error, psycopg.errors.InsufficientResources):
        return StorageError(f"nothing was committed: {error}")
    if error.sqlstate is None or connection.closed or connection.broken:
        return UnknownOutcomeError(f"the connection broke before the server answered to the commit: {error}")
    return error
