"""The connections of one driver: at most so many, and a place that is taken is given back however its command ends."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, cast, final

import trio
from coredis.connection import BaseConnection
from coredis.exceptions import ConnectionError as RedisConnectionError
from coredis.exceptions import RedisError
from coredis.pool import ConnectionPool
from typing_extensions import override

from kernel import Usage
from kernel.errors import UnavailableError

from ._config import RedisConfig


@final
class Pool(ConnectionPool[Any]):
    """The pool of a client of coredis, with places of its own: those of coredis get lost (0113).

    A place is taken by a connection that somebody has, or that is being made for somebody. One that nobody has keeps
    none: a new one is made only if there is no other, so that there are never more than `maxsize`.
    """

    def __init__(self, *, owner: str, config: RedisConfig, **options: Any) -> None:  # noqa: ANN401  coredis's own
        # A connection of coredis counts as idle while a command waits on it: who is idle is decided here.
        super().__init__(
            max_connections=config.maxsize, connect_timeout=config.connect_timeout, max_idle_time=None, **options
        )
        self._owner: Final = owner
        self._config: Final = config
        self._places: Final = trio.Semaphore(config.maxsize, max_value=config.maxsize)
        self._idle: Final[dict[BaseConnection, float]] = {}
        """Those that nobody has, and since when; the last one was used last."""
        self._is_shared: Final = ContextVar("is_shared", default=False)

    # --- to take and to give back -----------------------------------------------------------------------------

    @override
    async def get_connection(self, **_: Any) -> BaseConnection:
        """Take a connection, which is to be released.

        Raises:
            UnavailableError: if none becomes free within `acquire_timeout`.
            coredis.exceptions.ConnectionError: if none can be made.

        Cancellation: Is a checkpoint. If cancelled, there is no connection taken, and no place.
        """
        await trio.lowlevel.checkpoint()
        until = trio.current_time() + self._config.acquire_timeout
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            await self._wait_for_place(until)
        try:
            connection = await self._take(until)
        except BaseException:
            self._places.release()
            raise
        self.statistics.connection_leased(connection)
        return connection

    async def _wait_for_place(self, until: float) -> None:
        with trio.move_on_at(until) as scope:
            await self._places.acquire()
        if scope.cancelled_caught:
            raise self._exhausted()

    def _exhausted(self) -> UnavailableError:
        return UnavailableError(
            f"{self._owner}: no connection became free within acquire_timeout = {self._config.acquire_timeout:g} s;"
            f" all of maxsize = {self._config.maxsize} are in use, one for each command that blocks, pipeline and"
            " subscription: raise `maxsize`, or have fewer of them at a time"
        )

    async def _take(self, until: float) -> BaseConnection:
        while True:
            connection = self._take_idle()
            if connection is None:
                return await self._add()
            if self._is_shared.get() or await self._is_answered(connection, until):
                return connection  # noqa: ASYNC910  get_connection has had its checkpoint

    async def _is_answered(self, connection: BaseConnection, until: float) -> bool:
        """Wait until the server owes nobody an answer on it; return whether it can be used then.

        Whoever has it for itself closes it if what it does is cancelled, and would take along what others wait for.
        """
        with trio.move_on_at(until) as scope:
            try:
                while connection.usable and _is_asked(connection):
                    await _wait_answered(connection)
            except trio.Cancelled:
                if connection.usable:
                    self._idle[connection] = trio.current_time()
                raise
        if scope.cancelled_caught:
            raise self._exhausted()
        return connection.usable  # noqa: ASYNC910  as above

    def _take_idle(self) -> BaseConnection | None:
        """Take one that nobody has; None if one is to be made."""
        for connection in reversed(tuple(self._idle)):
            if not connection.reusable:
                self._close(connection)
            elif self._is_shared.get() or not _is_asked(connection):
                del self._idle[connection]
                return connection
        may_add = len(self._idle) <= self._places.value
        return None if may_add else self._idle.popitem()[0]

    @contextmanager
    def sharing(self, *, is_shared: bool) -> Generator[None]:
        """Have connections taken inside for one command only, which leaves an answer that is due to others to them."""
        token = self._is_shared.set(is_shared)
        try:
            yield
        finally:
            self._is_shared.reset(token)

    @override
    def release(self, connection: BaseConnection) -> None:
        """Give a connection back, or only its place if it is closed."""
        self.statistics.connection_released(connection)
        if connection.usable:
            self._idle[connection] = trio.current_time()
        self._places.release()

    @override
    @asynccontextmanager
    async def acquire(self, **_: Any) -> AsyncGenerator[BaseConnection]:
        """Have a connection while inside; it is closed if that is left by an error, since there may be anything on it.

        A subscription of coredis that is cancelled would stay in force, and be the next one's.
        """
        connection = await self.get_connection()
        try:
            yield connection
        except BaseException:
            connection.invalidate()
            raise
        finally:
            self.release(connection)

    # --- to open and to close -----------------------------------------------------------------------------------

    async def _add(self) -> BaseConnection:
        connection: BaseConnection = await self._construct_connection()
        # coredis bounds only the first half: until the server has been reached, and not until it has answered.
        with trio.move_on_after(2 * self._config.connect_timeout) as scope:
            error: Exception | None = await self.task_group.start(self._live, connection)
            if error is not None:
                raise error
        if scope.cancelled_caught:
            raise RedisConnectionError(
                f"the server does not answer within connect_timeout = {self._config.connect_timeout:g} s"
            )
        return connection

    async def _live(self, connection: BaseConnection, *, task_status: trio.TaskStatus[Exception | None]) -> None:
        """Run a connection until it is closed; tell the error if it never was open."""
        self._online_connections.add(connection)
        self.statistics.connection_created(connection)
        try:
            await connection.run(task_status=task_status)
        except RedisError as error:
            # coredis makes an error of a cancellation, too.
            await trio.lowlevel.checkpoint_if_cancelled()
            task_status.started(error)
        finally:
            self._online_connections.discard(connection)
            self.statistics.active_connections -= 1
            self._idle.pop(connection, None)

    def close_idle(self) -> None:
        """Close what nobody has had for `idle_timeout`."""
        until = trio.current_time() - self._config.idle_timeout
        for connection, since in tuple(self._idle.items()):
            if since <= until and not _is_asked(connection):
                self._close(connection)

    def _close(self, connection: BaseConnection) -> None:
        del self._idle[connection]
        connection.invalidate()

    # --- to look at ---------------------------------------------------------------------------------------------

    @property
    def is_exhausted(self) -> bool:
        """Whether somebody has each of the connections that there may be."""
        return self.statistics.in_use_connections >= self._config.maxsize

    def usage(self) -> Usage:
        """Return how the connections are used now. May be called from any thread."""
        idle = list(self._idle)
        asked = sum(map(_is_asked, idle))
        limit, waiting = self._config.maxsize, self._places.statistics().tasks_waiting
        return Usage(used=limit - self._places.value + asked, idle=len(idle) - asked, waiting=waiting, limit=limit)


def _is_asked(connection: BaseConnection) -> bool:
    """Whether the server owes an answer: a command that does not block shares its connection with others."""
    return bool(connection._requests)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  coredis counts, and not all


async def _wait_answered(connection: BaseConnection) -> None:
    """Wait until the last question on it has its answer, or it is closed."""
    last: Any = connection._requests[-1]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  as above
    await last._event.wait()  # noqa: SLF001  as above


@contextmanager
def no_news() -> Generator[None]:
    """Have coredis log no cancellation while inside: it has each that comes while it connects for an error."""
    logger, sieve = logging.getLogger("coredis"), partial(_is_news)  # one for each driver that is open
    logger.addFilter(sieve)
    try:
        yield
    finally:
        logger.removeFilter(sieve)


def _is_news(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).split(trio.Cancelled)[1] is not None
    return not isinstance(error, trio.Cancelled)
