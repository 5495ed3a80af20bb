"""What the connections of one dispatcher share: limits, routes, slots, and the way it stops.

A stop has three steps. `terminate` ends what only waits: idle connections, websockets, requests without a slot. Then
requests finish, or are cut by the kernel. `abort` closes what is left, without asking anybody.
"""

from __future__ import annotations

import errno
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, final

import attrs
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.worker_context import EventWrapper, WorkerContext

from kernel import Listening
from kernel.abc import Context, Intake

from ._config import Address, WebConfig
from ._connection import Connection
from ._listen import Listener
from ._routes import Routes, build_routes
from ._streams import Settings

CLOSING_SHARE: Final = 0.5
"""The share of `stop_timeout` in which connections may still send what they have; then they are aborted."""
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE: Final = 0.1
"""Seconds before the next try when the process has no file descriptor left."""
ACCEPTS: Final = 64
"""Connections accepted in one turn. With one, a client that comes waits for as many turns as came before it, and each of
those turns is as long as all the requests in it."""
_UNLIMITED: Final = 2**62


class _Latch(EventWrapper):
    def trip(self) -> None:
        self._event.set()


class _Silent:
    """Takes hypercorn's log: what matters is reported by this package."""

    def __init__(self, config: HypercornConfig) -> None:
        pass

    def __getattr__(self, level: str) -> object:
        return self._drop

    async def access(self, *_: object) -> None:
        pass

    async def _drop(self, *_: object) -> None:
        pass


@final
@attrs.define(eq=False, repr=False)
class Server:
    """The shared part."""

    config: WebConfig
    context: Context
    tls: ssl.SSLContext | None
    nursery: trio.Nursery
    """In which connections live."""
    hypercorn: HypercornConfig = attrs.field(init=False)
    hypercorn_context: WorkerContext = attrs.field(init=False)
    connections: dict[Connection, str] = attrs.field(factory=dict["Connection", str], init=False)
    """Each with the address of its client."""
    intake: Intake = attrs.field(init=False)
    routes: Routes = attrs.field(init=False)
    terminated: bool = attrs.field(default=False, init=False)
    waiting: set[trio.CancelScope] = attrs.field(factory=set[trio.CancelScope], init=False)
    """Of requests that wait for a slot."""
    _per_ip: Counter[str] = attrs.field(factory=Counter[str], init=False)
    _empty: trio.Event = attrs.field(factory=trio.Event, init=False)
    _full: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.hypercorn = _hypercorn_config(self.config)
        self.hypercorn_context = WorkerContext(None)
        self.hypercorn_context.terminated = _Latch()

    async def accept(self, listeners: Sequence[Listener], intake: Intake, task_status: trio.TaskStatus[None]) -> None:
        """Let clients in until cancelled, then close the listeners and begin to stop."""
        self.routes = build_routes(intake.targets)
        self.intake = intake
        try:
            async with trio.open_nursery() as nursery:
                for listener in listeners:
                    self._announce(listener)
                    nursery.start_soon(self._accept_from, listener)
                task_status.started()
        finally:
            for listener in listeners:
                listener.close()
            self.terminate()

    def _announce(self, listener: Listener) -> None:
        scheme = "https" if self.tls else "http"
        shown = listener.shown
        address = f"{scheme}+{shown}" if listener.address.path else f"{scheme}://{shown}"
        self.context.emit(Listening(component=self.context.id, address=address))

    async def _accept_from(self, listener: Listener) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener.socket)
            pause = self._accept_those_that_wait(listener)
            if pause:
                await trio.sleep(pause)

    def _accept_those_that_wait(self, listener: Listener) -> float:
        """Accept what has come, up to `ACCEPTS`; return the seconds to wait before the next try."""
        try:
            for _ in range(ACCEPTS):
                sock, peer = listener.socket.accept()
                sock.setblocking(False)  # noqa: FBT003
                self._admit(trio.socket.from_stdlib_socket(sock), listener.address, peer)
        except BlockingIOError:
            return 0.0
        except OSError as error:
            return self._pause_after(error, listener)
        return 0.0

    def _pause_after(self, error: OSError, listener: Listener) -> float:
        """Return the seconds to wait before the next client; raises the error if there cannot be one."""
        if error.errno in _NO_ROOM:
            self.context.log.warning("no connection can be accepted", reason=error.strerror)
            return _PAUSE
        if listener.socket.fileno() == -1:
            raise error
        return 0.0  # it is about that one client, who is gone: see accept(2)

    def _admit(self, sock: trio.socket.SocketType, address: Address, peer: Any) -> None:  # noqa: ANN401  as sockets say it
        client = "" if address.path else str(peer[0])
        limit = self.config.max_connections_per_ip
        if len(self.connections) >= self.config.max_connections or (client and limit and self._per_ip[client] >= limit):
            sock.close()
            self._tell_full(client)
            return
        self._full = False
        connection = Connection(self, trio.SocketStream(sock))
        self.connections[connection] = client
        self._per_ip[client] += 1
        self.nursery.start_soon(connection.run)

    def _tell_full(self, client: str) -> None:
        if not self._full:  # once, until there is room again: a flood must not flood the log
            self.context.log.warning("connections are refused", client=client, open=len(self.connections))
        self._full = True

    def forget(self, connection: Connection) -> None:
        """Take note that a connection is closed."""
        client = self.connections.pop(connection)
        self._per_ip[client] -= 1
        if not self._per_ip[client]:
            del self._per_ip[client]
        if not self.connections:
            self._empty.set()
            self._empty = trio.Event()

    def terminate(self) -> None:
        """End what only waits; the rest goes on. May be called again."""
        if self.terminated:
            return
        self.terminated = True
        latch = self.hypercorn_context.terminated
        if isinstance(latch, _Latch):
            latch.trip()
        for scope in self.waiting:
            scope.cancel()
        for connection in self.connections:
            connection.terminate()

    async def wait_empty(self) -> None:
        """Wait until every connection is closed. Is a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.connections:
            await self._empty.wait()

    def abort(self) -> None:
        """Close every connection at once, whatever it is doing."""
        for connection in list(self.connections):
            connection.abort()


@asynccontextmanager
async def serving(config: WebConfig, context: Context, tls: ssl.SSLContext | None) -> AsyncGenerator[Server]:
    """Hold the connections of a dispatcher around the body.

    Cancellation: Is a checkpoint on exit, which takes half of `stop_timeout` at most; cancelled, it aborts at once.
    """
    async with trio.open_nursery() as nursery:
        server = Server(config, context, tls, nursery)
        try:
            yield server
        finally:
            server.terminate()
            try:
                with trio.move_on_after(context.stop_timeout * CLOSING_SHARE):
                    await server.wait_empty()  # noqa: ASYNC102  cancelled, it aborts at once
            finally:
                server.abort()
                nursery.cancel_scope.cancel()


def _hypercorn_config(config: WebConfig) -> HypercornConfig:
    """Return what hypercorn's protocols read of a configuration."""
    settings = Settings()
    settings.h2c = config.h2c
    settings.logger_class = _Silent  # type: ignore[assignment]  # has all that is called
    settings.errorlog = None
    settings.h11_max_incomplete_size = config.max_header_bytes
    settings.h2_max_header_list_size = config.max_header_bytes
    # A limit would end a connection of HTTP/2 under the requests that still run on it.
    settings.keep_alive_max_requests = _UNLIMITED
    settings.websocket_max_message_size = config.websocket_max_bytes
    settings.websocket_ping_interval = config.websocket_ping or None
    settings.include_server_header = config.server_header
    return settings
