"""The connections of one driver: at most so many, each for one task at a time, replaced when they are broken or old."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, final

import attrs
import psycopg
import trio
from psycopg import pq
from typing_extensions import override

from kernel import Usage
from kernel.abc import Context
from kernel.errors import UnavailableError

from ._config import PostgresConfig
from ._connection import TrioConnection
from ._events import PoolMeasured
from ._seat import Seat

Connect = Callable[[], Awaitable[TrioConnection]]

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
"""Seconds between two attempts to connect to a server that is away."""
_LONGEST_LOOK: Final = 10.0
"""Seconds between two looks at what has been idle for too long."""
_AT_ONCE: Final = 8
"""Connections that are being opened at a time, at most."""
_IDLE: Final = pq.TransactionStatus.IDLE
# A member of an enumeration is looked up in Python, which each statement would do.


@final
@attrs.define(eq=False, repr=False)
class Pool:
    """Connections to take and to give back."""

    _config: PostgresConfig
    _context: Context
    _connect: Connect
    _places: trio.Semaphore = attrs.field(init=False)
    _idle: deque[Seat] = attrs.field(factory=deque[Seat], init=False)
    """Those that nobody has; the last one was used last."""
    _all: set[Seat] = attrs.field(factory=set[Seat], init=False)
    _line: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    """Who has a place, and waits until a connection may be opened or is given back."""
    _opening: int = attrs.field(default=0, init=False)
    _is_well: bool = attrs.field(default=True, init=False)
    _refusal: tuple[float, str] = attrs.field(default=(-math.inf, ""), init=False)
    """When a connection could not be opened last, and why."""
    _taken: int = attrs.field(default=0, init=False)
    _opened: int = attrs.field(default=0, init=False)
    _closed: int = attrs.field(default=0, init=False)
    _waited: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._places = trio.Semaphore(self._config.pool_max)

    # --- to take and to give back -----------------------------------------------------------------------------

    def seat(self) -> Seated:
        """Have a connection while inside.

        Raises:
            UnavailableError: if none is free, or none can be made, within `acquire_timeout`.

        Cancellation: Is a checkpoint on entry, unless one is free. On exit what is open on the connection is undone,
            within `cancel_timeout`, or the connection is closed.
        """
        return Seated(self)

    async def take(self) -> Seat:
        """Take a connection, which is to be given back."""
        began = trio.current_time()
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            await self._wait_for_place()
        try:
            seat = self._take_idle() or await self._open_patiently(began)
        except BaseException:
            self._places.release()
            raise
        seat.uses += 1
        self._taken += 1
        self._waited += trio.current_time() - began
        return seat  # noqa: ASYNC910  to take what is free is no wait; what is done with it is one

    async def _wait_for_place(self) -> None:
        began = trio.current_time()
        with trio.move_on_after(self._config.acquire_timeout) as scope:
            await self._places.acquire()
        if scope.cancelled_caught:
            raise self._too_late(began)

    def _too_late(self, began: float) -> UnavailableError:
        """Return what to tell somebody who has waited for too long: above all what the server has said meanwhile."""
        at, refusal = self._refusal
        size, most = len(self._all), self._config.pool_max
        used = f"all of pool_max = {most} are in use" if size >= most else f"{size} of pool_max = {most} are open"
        return UnavailableError(
            f"{self._context.id}: no connection became free within acquire_timeout ="
            f" {self._config.acquire_timeout:g} s; {used}"
            + (f", and no more could be opened: {refusal}" if refusal and (at >= began or not self._is_well) else "")
        )

    def _take_idle(self) -> Seat | None:
        while self._idle:
            seat = self._idle.pop()
            if seat.until > trio.current_time() and seat.is_well():
                return seat
            self._drop(seat)
        return None

    async def give_back(self, seat: Seat) -> None:  # noqa: ASYNC910  nothing to wait for is the rule
        """Give a connection back, as the next task may expect it."""
        pgconn = seat.connection.pgconn
        is_tidy = pgconn.transaction_status == _IDLE and not pgconn.pipeline_status
        try:
            if not is_tidy and not seat.connection.closed:
                await self._tidy(seat.connection)
        finally:
            self._put(seat)

    def _put(self, seat: Seat) -> None:
        is_used_up = 0 < self._config.max_queries <= seat.uses
        seat.idle_since = trio.current_time()
        if seat not in self._all or seat.connection.closed or is_used_up or seat.until <= seat.idle_since:
            self._drop(seat)
        else:
            self._idle.append(seat)
            if self._line:  # to ask costs less than to wake nobody
                self._line.unpark_all()
        self._places.release()

    async def _tidy(self, connection: TrioConnection) -> None:  # noqa: ASYNC910  to close is no wait
        """Leave a connection as the next task may expect it, or closed."""
        pgconn = connection.pgconn
        if pgconn.pipeline_status != pq.PipelineStatus.OFF:
            connection.abort()
        elif pgconn.transaction_status in {pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR}:
            await self._roll_back(connection)
        elif pgconn.transaction_status != pq.TransactionStatus.IDLE:
            connection.abort()

    async def _roll_back(self, connection: TrioConnection) -> None:  # noqa: ASYNC910  it may be cancelled already
        with trio.move_on_after(self._config.cancel_timeout, shield=True):
            try:
                await connection.rollback()
            except psycopg.Error:
                connection.abort()
            return  # noqa: ASYNC910  as above
        connection.abort()

    # --- to open and to close -----------------------------------------------------------------------------------

    async def add(self) -> Seat:
        """Open a connection that nobody has yet; raises what libpq says.

        Cancellation: Is a checkpoint. If cancelled, there is no connection more.
        """
        try:
            with trio.fail_after(self._config.connect_timeout):
                connection = await self._connect()
        except (psycopg.OperationalError, trio.TooSlowError) as error:
            told = str(error) or f"no connection within connect_timeout = {self._config.connect_timeout:g} s"
            self._note(told.strip())
            raise UnavailableError(f"{self._context.id}: {told.strip()}") from error
        self._note("")
        connection.cancel_timeout = self._config.cancel_timeout
        life = self._config.max_lifetime * random.uniform(0.9, 1.0) or float("inf")
        seat = Seat(connection, trio.current_time() + life)
        self._all.add(seat)
        self._opened += 1
        return seat

    async def _open_patiently(self, began: float) -> Seat:
        """Open a connection, when it is one's turn, or take one that somebody gives back before.

        While the server is away, or lets no more in, it is tried again, since that may change in time.
        """
        until, again, pause = began + self._config.acquire_timeout, -math.inf, _FIRST_PAUSE
        while True:
            now = trio.current_time()
            if self._opening < _AT_ONCE and again <= now < until:
                try:
                    return await self._open()
                except UnavailableError:
                    now = trio.current_time()
                    if not self._all and now + pause >= min(until, trio.current_effective_deadline()):
                        raise
                again, pause = now + pause * random.uniform(0.5, 1.0), min(2 * pause, _LONGEST_PAUSE)
            if now >= until:
                raise self._too_late(began)
            await self._wait_in_line(min(until, again if again > now else until))
            if (seat := self._take_idle()) is not None:
                return seat

    async def _open(self) -> Seat:
        self._opening += 1
        try:
            return await self.add()
        finally:
            self._opening -= 1
            self._line.unpark_all()

    async def _wait_in_line(self, until: float) -> None:
        """Wait until it may be one's turn to open a connection, or one was given back, but not for longer."""
        with trio.move_on_at(until):
            await self._line.park()

    def _note(self, trouble: str) -> None:
        """Tell when the server cannot be reached, and when it can again."""
        if trouble:
            self._refusal = trio.current_time(), trouble
        if trouble and self._is_well:
            self._context.report_degraded(trouble)
        elif not trouble and not self._is_well:
            self._context.report_ready()
        self._is_well = not trouble

    def _drop(self, seat: Seat) -> None:
        seat.connection.abort()
        if seat in self._all:
            self._all.remove(seat)
            self._closed += 1

    def close(self) -> None:
        """Close every connection, also one that somebody has."""
        for seat in tuple(self._all):
            self._drop(seat)
        self._idle.clear()

    # --- upkeep -----------------------------------------------------------------------------------------------

    async def fill(self) -> None:
        """Open what is missing to `pool_min`, nobody else using the pool."""
        await trio.lowlevel.checkpoint()
        while len(self._all) < self._config.pool_min:
            self._idle.append(await self.add())

    async def keep(self) -> None:
        """Close what is idle for too long, replace what is broken, and tell how the pool is used; never returns."""
        interval = min(self._config.max_inactive_connection_lifetime / 2 or _LONGEST_LOOK, _LONGEST_LOOK)
        while True:
            await trio.sleep(interval)
            self._close_idle()
            with trio.move_on_after(self._config.connect_timeout):
                await self._fill_quietly()

    async def measure(self) -> None:
        """Tell how the pool is used, again and again."""
        while True:
            await trio.sleep(self._config.statistics_interval)
            if self._context.hears(PoolMeasured):
                self._context.emit(self.measured())

    def usage(self) -> Usage:
        """Return how the pool is used now. May be called from any thread."""
        size, idle = len(self._all), len(self._idle)
        waiting = self._places.statistics().tasks_waiting
        return Usage(used=size - idle, idle=idle, waiting=waiting, limit=self._config.pool_max)

    def measured(self) -> PoolMeasured:
        """Return how the pool is used."""
        return PoolMeasured(
            component=self._context.id,
            size=len(self._all),
            idle=len(self._idle),
            waiting=self._places.statistics().tasks_waiting,
            taken=self._taken,
            opened=self._opened,
            closed=self._closed,
            waited=self._waited,
        )

    def _close_idle(self) -> None:
        limit, now = self._config.max_inactive_connection_lifetime, trio.current_time()
        for seat in tuple(self._idle):
            is_spare = len(self._all) > self._config.pool_min
            if not seat.is_well() or seat.until <= now or (limit and is_spare and seat.idle_since + limit <= now):
                self._idle.remove(seat)
                self._drop(seat)

    async def _fill_quietly(self) -> None:
        """Fill as far as places are free; that a server is away is told by `add`."""
        await trio.lowlevel.checkpoint()
        while len(self._all) < self._config.pool_min and self._places.value:
            self._places.acquire_nowait()
            try:
                self._idle.append(await self.add())
            except UnavailableError:
                return
            finally:
                self._places.release()


@final
@attrs.define(eq=False, repr=False)
class Seated(AbstractAsyncContextManager[TrioConnection]):
    """A seat of a pool while inside. A generator would cost as much as all else that the pool does."""

    _pool: Pool
    _seat: Seat | None = attrs.field(default=None, init=False)

    @override
    async def __aenter__(self) -> TrioConnection:
        self._seat = await self._pool.take()
        return self._seat.connection

    @override
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._seat is not None
        await self._pool.give_back(self._seat)  # noqa: ASYNC102  it shields what it waits for
