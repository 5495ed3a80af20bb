"""Lets clients in, keeps their deadlines, and ends them when the dispatcher stops.

A stop has three steps. `begin_stop` ends what only waits: idle connections, websockets, requests without a slot. Then
requests finish, or are cut by the kernel. `abort` closes what is left, without asking anybody.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from kernel import Listening
from kernel.abc import Context, Intake, hearing
from kernel.errors import StartupError

from .._config import Address, WebConfig
from ..asgi.access import AccessLog, as_json, as_text
from ..asgi.ended import Ended
from ..asgi.events import CountsAsked
from ..asgi.missed import Missed
from ..asgi.routes import build_routes
from ..asgi.shared import Shared
from ..wire.clock import TICK_MAX, Clock
from ..wire.lines import LinesFile
from ..wire.listen import Listener
from .guest import Guest
from .renewal import Certificates

if TYPE_CHECKING:
    import ssl

CLOSING_SHARE: Final = 0.5
"""The share of `stop_timeout` in which connections may still send what they have; then they are aborted."""
ACCEPTS: Final = 64
"""Connections accepted in one turn. With one, a client that comes waits for as many turns as came before it, and each of
those turns is as long as all the requests in it."""
ACCEPTS_SHARED: Final = 4
"""The same where several processes accept from one socket: who is busy leaves more to the others."""
LAST_CALL: Final = 0.5
"""Seconds in which a client that keeps its connection may ask once more, while other processes go on: else what it is
sending at that moment would be lost."""
_TURNS: Final = 3
"""In which each connection looks, after a stop has begun, whether something has come: one to be woken, or begun, in."""
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE: Final = 0.1
"""Seconds before the next try when the process has no file descriptor left."""
_SELDOM: Final = 10.0
"""Seconds between two lines of the log about clients that are not let in: a flood must not flood the log."""


@final
@attrs.define(eq=False, repr=False)
class Server:
    """All connections of one dispatcher."""

    shared: Shared
    certificates: Certificates | None
    nursery: trio.Nursery
    """In which connections live."""
    connections: dict[Guest, None] = attrs.field(factory=dict[Guest, None], init=False)
    _per_ip: Counter[str] = attrs.field(factory=Counter[str], init=False)
    _left: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _quiet_until: float = attrs.field(default=0.0, init=False)
    _refused: int = attrs.field(default=0, init=False)
    """How many were since the log was told."""

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What a new connection is encrypted with; None if it is not."""
        return None if self.certificates is None else self.certificates.context

    # --- letting in ---------------------------------------------------------------------------------------------

    async def accept(self, listeners: Sequence[Listener], intake: Intake, task_status: trio.TaskStatus[None]) -> None:
        """Let clients in until cancelled, then close the listeners and begin to stop."""
        self.shared.routes = build_routes(intake.targets, self.shared.config)
        self.shared.intake = intake
        try:
            async with trio.open_nursery() as nursery:
                for listener in listeners:
                    self._announce(listener)
                    nursery.start_soon(self._accept_from, listener)
                task_status.started()
        finally:
            if any(listener.is_shared for listener in listeners):
                await self._call_last(listeners)  # noqa: ASYNC102  it is shielded, and has a deadline
            for listener in listeners:
                if not listener.is_shared:  # else they come to another process, which has time for what they will ask
                    # They were let in before the stop, as far as they can tell.
                    self._accept_those_that_wait(listener, most=self.shared.config.backlog + ACCEPTS)
                listener.close()
            self.begin_stop()
            # A request that had come is in flight only when its connection has looked: the drain must not end before.
            with trio.CancelScope(shield=True):
                for _ in range(_TURNS):
                    await trio.lowlevel.checkpoint()  # noqa: ASYNC102  so many turns, and no longer

    async def _call_last(self, listeners: Sequence[Listener]) -> None:
        """Let those who are connected ask once more; nobody else is let in, and comes to another process."""
        self.shared.leaving = True
        for listener in listeners:
            self._accept_those_that_wait(listener)
        seconds = min(LAST_CALL, self.shared.context.stop_timeout / 4)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds):
            while any(guest.is_idle for guest in self.connections):
                await self._left.park()  # noqa: ASYNC102  it has a deadline
        await trio.lowlevel.cancel_shielded_checkpoint()  # noqa: ASYNC102  as above

    def _announce(self, listener: Listener) -> None:
        scheme = "https" if self.tls else "http"
        shown = listener.shown
        address = f"{scheme}+{shown}" if listener.address.path else f"{scheme}://{shown}"
        self.shared.context.emit(Listening(component=self.shared.context.id, address=address))

    async def _accept_from(self, listener: Listener) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener.socket)
            pause = self._accept_those_that_wait(listener, most=ACCEPTS_SHARED if listener.is_shared else ACCEPTS)
            if pause:
                await trio.sleep(pause)

    def _accept_those_that_wait(self, listener: Listener, *, most: int = ACCEPTS) -> float:
        """Accept what has come, up to so many; return the seconds to wait before the next try."""
        try:
            for _ in range(most):
                sock, client = listener.socket.accept()
                self._admit(sock, listener.address, client)
        except BlockingIOError:
            return 0.0
        except OSError as error:
            return self._pause_after(error, listener)
        return 0.0

    def _pause_after(self, error: OSError, listener: Listener) -> float:
        """Return the seconds to wait before the next client; raises the error if there cannot be one."""
        if error.errno in _NO_ROOM:
            self.refuse("no connection can be accepted", reason=error.strerror)
            return _PAUSE
        if listener.socket.fileno() == -1:
            raise error
        return 0.0  # it is about that one client, who is gone: see accept(2)

    def _admit(self, sock: socket.socket, address: Address, client: Any) -> None:  # noqa: ANN401  as sockets say it
        name = "" if address.path else str(client[0])
        config = self.shared.config
        limit = config.max_connections_per_ip
        if len(self.connections) >= config.max_connections or (name and limit and self._per_ip[name] >= limit):
            sock.close()
            self.refuse("connections are refused", client=name, open=len(self.connections))
            return
        sock.setblocking(False)  # noqa: FBT003
        guest = Guest(self, sock, client, name)
        self.connections[guest] = None
        self._per_ip[name] += 1
        self.nursery.start_soon(guest.run)

    def refuse(self, what: str, **more: object) -> None:
        """Say in the log that somebody is not let in, unless it was said a moment ago."""
        self._refused += 1
        now = self.shared.clock.now
        if now >= self._quiet_until:
            self.shared.context.log.warning(what, times=self._refused, **more)
            self._quiet_until, self._refused = now + _SELDOM, 0

    def forget(self, guest: Guest) -> None:
        """Take note that a connection is closed."""
        del self.connections[guest]
        self._per_ip[guest.address] -= 1
        if not self._per_ip[guest.address]:
            del self._per_ip[guest.address]
        self._left.unpark_all()

    # --- deadlines and the stop ---------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Keep the deadlines of all connections, until cancelled."""
        clock, config = self.shared.clock, self.shared.config
        while True:
            await trio.sleep(clock.tick)
            self.shared.ended.tell()
            clock.move(server_header=config.server_header)
            self.shared.look_at_threads()
            now = clock.now - clock.tick
            for guest in list(self.connections):
                guest.look(now)

    def begin_stop(self) -> None:
        """End what only waits; the rest goes on. May be called again."""
        if self.shared.stopping:
            return
        self.shared.stopping = True
        for scope in list(self.shared.waiting):
            scope.cancel()
        for guest in list(self.connections):
            guest.stop()

    async def wait_empty(self) -> None:
        """Wait until every connection is closed. Is a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.connections:
            await self._left.park()

    def abort(self) -> None:
        """Close every connection at once, whatever it is doing."""
        for guest in list(self.connections):
            guest.abort()


@asynccontextmanager
async def serving(config: WebConfig, context: Context, certificates: Certificates | None) -> AsyncGenerator[Server]:
    """Hold the connections of a dispatcher around the body.

    Cancellation: Is a checkpoint on exit, which takes half of `stop_timeout` at most; cancelled, it aborts at once.
    """
    shared = Shared(config, context, Clock(config.shortest_timeout, server_header=config.server_header))
    async with _telling(config, shared.ended), trio.open_nursery() as nursery:
        server = Server(shared, certificates, nursery)
        nursery.start_soon(server.sweep)
        if certificates is not None:
            nursery.start_soon(certificates.keep)
        if shared.ended.access is not None:
            nursery.start_soon(shared.ended.access.write, TICK_MAX, shared.ended.tell)
        try:
            yield server
        finally:
            server.begin_stop()
            try:
                with trio.move_on_after(context.stop_timeout * CLOSING_SHARE):
                    await server.wait_empty()  # noqa: ASYNC102  cancelled, it aborts at once
            finally:
                server.abort()
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def _telling(config: WebConfig, ended: Ended) -> AsyncGenerator[None]:
    """Have requests told of that end inside, and written down if that is asked for, the last after all connections.

    Raises:
        StartupError: if the file of the access log cannot be opened.

    Cancellation: Is a checkpoint on exit, which takes a second at most, if there is an access log.
    """
    ended.access = _open_access_log(config, ended.context)
    try:
        with hearing(ended.context, (ended.tell_who_asks, CountsAsked)):
            yield
    finally:
        ended.tell()
        if ended.access is not None:
            await ended.access.close()  # noqa: ASYNC102  shielded, and it has a deadline


def _open_access_log(config: WebConfig, context: Context) -> AccessLog | None:
    """Return the access log, None if there is none.

    Raises:
        StartupError: if its file cannot be opened.
    """
    if config.access_log == "off":
        return None
    path = config.access_log_file
    file = LinesFile(Path(path).absolute() if path else None)
    try:
        file.open()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StartupError(f'access_log_file = "{path}": {reason}') from error
    return AccessLog(file, as_json if config.access_log == "json" else as_text, Missed(context, file.shown))
