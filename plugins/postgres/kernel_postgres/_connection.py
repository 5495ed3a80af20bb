"""psycopg's connection, waited for by trio, with transactions that end whatever cancels them.

What is overridden here is half public in psycopg: its version is bounded in `pyproject.toml`, and
`tests/test_connection.py` holds what it must do.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, TypeVar, cast, final

import attrs
import psycopg
import trio
from psycopg import AsyncConnection, AsyncTransaction, errors, generators, pq
from psycopg.conninfo import make_conninfo
from psycopg.rows import tuple_row
from psycopg.waiting import Ready, Wait
from typing_extensions import override

from ._waiting import Conversation, connect_with

ResultT = TypeVar("ResultT")

_ACTIVE: Final = pq.TransactionStatus.ACTIVE


@final
@attrs.define(eq=False, repr=False)
class _Lock:
    """As psycopg uses its lock; to take it when it is free is no checkpoint, since every statement does."""

    _is_held: bool = attrs.field(default=False, init=False)
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    async def __aenter__(self) -> None:  # noqa: ASYNC910  as its docstring says
        if self._is_held:
            await self._waiting.park()  # who leaves it hands it over
        self._is_held = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_held = bool(self._waiting and self._waiting.unpark())


class TrioConnection(AsyncConnection[Any]):
    """A connection of psycopg, with all that its documentation tells of `AsyncConnection`, for trio.

    A statement that is cancelled is cancelled on the server too, and the connection lives on. If the server does not
    end it in time, the connection is closed.
    """

    cancel_timeout: float = 1.0
    """Seconds that a cancelled statement, or a transaction that is left by an error, has to end."""

    steps: trio.CapacityLimiter
    """How many threads may do steps of connecting, which cancelling a statement has, too."""

    def __init__(self, pgconn: pq.abc.PGconn, row_factory: Any = tuple_row) -> None:  # noqa: ANN401  psycopg's
        super().__init__(pgconn, row_factory)
        self.lock = cast("Any", _Lock())

    @override
    async def wait(
        self, gen: Generator[Wait, Ready | int, ResultT], interval: float = 0.0, timeout: float | None = None
    ) -> ResultT:
        """Wait for a generator of psycopg.

        Cancellation: Is a checkpoint. If cancelled, the statement is ended on the server, within `cancel_timeout`;
            it may have been done.
        """
        conversation = Conversation(gen, self.pgconn.socket)
        if timeout is not None:
            with trio.move_on_after(timeout):
                return await conversation.go_on()
            raise errors._WaitTimeout  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  psycopg's callers expect it
        try:
            return await conversation.go_on()
        except psycopg.Error as error:
            put_on_one_line(error)
            raise
        except trio.Cancelled:
            if self.pgconn.transaction_status == _ACTIVE:
                await self._end(conversation)  # noqa: ASYNC102  it shields itself
            raise

    def begin_nothing(self) -> None:
        """Let each statement be a transaction unless one is open. For a connection on which nothing was done yet."""
        self._autocommit = True

    @override
    async def close(self) -> None:  # noqa: ASYNC910  as its docstring says
        """Close; never waits for the server.

        Cancellation: Is no checkpoint, so that a connection can be closed wherever it is.
        """
        self.abort()

    def abort(self) -> None:
        """Close at once. What waits for the connection is told."""
        if not self.closed:
            trio.lowlevel.notify_closing(self.pgconn.socket)
            self._closed = True
            self.pgconn.finish()

    async def _end(self, conversation: Conversation[ResultT]) -> None:  # noqa: ASYNC910  the caller is being cancelled
        """End what runs on the server, so that the next answer is that of the next question."""
        with trio.move_on_after(self.cancel_timeout, shield=True):
            try:
                await connect_with(self._cancel_gen(), steps=self.steps)
                await conversation.go_on()
            except errors.QueryCanceled:
                pass
            except psycopg.Error:
                self._close_unless_idle()
            return  # noqa: ASYNC910  as above
        self.abort()

    def _close_unless_idle(self) -> None:
        """Close, if it is not known what the server will say next."""
        if self.pgconn.status != pq.ConnStatus.OK or self.pgconn.transaction_status == _ACTIVE:
            self.abort()

    @override
    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncGenerator[AsyncTransaction]:
        """Begin a transaction, or set a savepoint in one; undone if the body raises or is cancelled.

        Cancellation: Is a checkpoint on entry and on exit. To undo it takes at most `cancel_timeout`, after which the
            connection is closed. If cancelled on a clean exit, all of it happened, or nothing.
        """
        if self._pipeline:
            async with super().transaction(savepoint_name, force_rollback) as inner:
                yield inner
            return
        transaction = AsyncTransaction(self, savepoint_name, force_rollback)
        try:
            await transaction.__aenter__()
            yield transaction
            await transaction.__aexit__(None, None, None)
        except BaseException as error:  # noqa: ASYNC103  raised again unless it is psycopg's Rollback of this transaction
            is_open = transaction.status is AsyncTransaction.Status.ACTIVE
            if not (is_open and await self._undo(transaction, error)):  # noqa: ASYNC102  it shields itself
                raise

    async def _undo(self, transaction: AsyncTransaction, error: BaseException) -> bool:
        """Undo a transaction; returns whether that was all that the error wanted."""
        with trio.move_on_after(self.cancel_timeout, shield=True):
            return bool(await transaction.__aexit__(type(error), error, error.__traceback__))
        self.abort()
        return False


async def connect(params: Mapping[str, Any], *, steps: trio.CapacityLimiter) -> TrioConnection:
    """Connect, in the mode in which each statement is a transaction unless one is open.

    Args:
        params: Words of libpq. Hosts are looked up without blocking the loop.
        steps: How many threads may do steps of connecting, of this connection and others.

    Raises:
        psycopg.OperationalError: if none of the hosts lets us in.

    Cancellation: Is a checkpoint. If cancelled, nothing is left behind.
    """
    conninfo = make_conninfo("", **await _looked_up(params))
    try:
        connection = TrioConnection(await connect_with(generators.connect(conninfo), steps=steps))
    except psycopg.Error as error:
        put_on_one_line(error)
        raise
    connection.steps = steps
    connection.begin_nothing()
    return connection


def put_on_one_line(error: psycopg.Error) -> None:
    """Have an error of libpq say on one line what it says; what the server says stays, with its mark below a line."""
    if error.sqlstate is None and error.args:
        error.args = (" ".join(str(error).split()), *error.args[1:])


async def _looked_up(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the words with the addresses of the hosts: libpq would look them up itself, and block.

    libpq tries them in their order.
    """
    hosts, ports = str(params.get("host", "")).split(","), str(params.get("port", "")).split(",")
    await trio.lowlevel.checkpoint()
    if params.get("hostaddr") or not any(host and not host.startswith(("/", "@")) for host in hosts):
        return dict(params)
    found: list[tuple[str, str, str]] = []
    for at, host in enumerate(hosts):
        port = ports[at if len(ports) > 1 else 0]
        found += [(host, port, address) for address in await _addresses(host, port or "5432")]
    return {
        **params,
        "host": ",".join(host for host, _, _ in found),
        "hostaddr": ",".join(address for _, _, address in found),
        "port": ",".join(port for _, port, _ in found),
    }


async def _addresses(host: str, port: str) -> list[str]:
    if not host or host.startswith(("/", "@")):
        await trio.lowlevel.checkpoint()
        return [""]
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except OSError as error:
        raise psycopg.OperationalError(f'host "{host}" cannot be looked up: {error}') from error
    return [str(address[0]) for *_, address in found]
