"""A TCP proxy on this machine that does to connections what networks do, when a test says so.

    async with open_proxy("127.0.0.1", 5672) as proxy:
        ...  # connect to 127.0.0.1:proxy.port
        proxy.to_client = LineFaults(black_hole=True)
        ...
        proxy.reset()

Real sockets mean real time: an autojump clock would jump while bytes are under way in the kernel of the system.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import final

import attrs
import trio

from ._proxy_line import Line, LineFaults
from ._proxy_pipe import Ending, Pipe

_HERE = "127.0.0.1"
_RESET = struct.pack("ii", 1, 0)
"""`SO_LINGER` on, with no time: closing sends RST, and drops what was not sent."""


@final
@attrs.define(eq=False, repr=False)
class _Connection:
    """A client, its own connection to the server, and what goes between them."""

    client: trio.SocketStream
    to_server: Line
    to_client: Line
    seed: str
    _open: list[trio.SocketStream] = attrs.field(factory=list[trio.SocketStream], init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    def __attrs_post_init__(self) -> None:
        self._open.append(self.client)

    async def carry(self, host: str, port: int) -> None:  # noqa: ASYNC910  connecting is a checkpoint
        """Connect to the server, and carry both ways until both have ended or one cannot go on; then close all."""
        try:
            with self._scope:
                server = await trio.open_tcp_stream(host, port)
                self._open.append(server)
                await self._carry(server)
        except OSError:  # no server: the client learns it as far as a proxy can tell, its connection breaks
            self.reset()
        finally:
            self._close()

    async def _carry(self, server: trio.SocketStream) -> None:
        there = Pipe(self.client, server, self.to_server, random.Random(f"{self.seed} to server"))
        back = Pipe(server, self.client, self.to_client, random.Random(f"{self.seed} to client"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run, there, self.to_client)
            nursery.start_soon(self._run, back, self.to_server)

    async def _run(self, pipe: Pipe, opposite: Line) -> None:
        match await pipe.run():
            case Ending.ENDED:
                return
            case Ending.CUT:
                self._close()
            case Ending.SOURCE_GONE:
                self.reset()
            case Ending.TARGET_GONE:
                await opposite.wait_passing()  # that somebody is gone is news like any other
                self.reset()

    def reset(self) -> None:
        """Close both sockets with RST, at once."""
        for stream in self._open:
            if stream.socket.fileno() >= 0:
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._close()

    def _close(self) -> None:
        for stream in self._open:
            stream.socket.close()
        self._scope.cancel()


@final
@attrs.define(eq=False, repr=False)
class Proxy:
    """A proxy that runs: what goes wrong can be set at any time."""

    server: tuple[str, int]
    """Host and port to which connections are passed on."""
    seed: int
    accepted: int = attrs.field(default=0, init=False)
    """Connections of clients so far."""
    port: int = attrs.field(default=0, init=False)
    """Where clients connect, on 127.0.0.1; the same for as long as the proxy is open."""
    _to_server: Line = attrs.field(factory=Line, init=False)
    _to_client: Line = attrs.field(factory=Line, init=False)
    _open: set[_Connection] = attrs.field(factory=set[_Connection], init=False)
    _listener: trio.socket.SocketType = attrs.field(init=False)
    _up: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._listener = _bound(0)
        self.port = self._listener.getsockname()[1]
        self.come_back()

    @property
    def connections(self) -> int:
        """How many connections are open, to the proxy and from it to the server."""
        return len(self._open)

    @property
    def to_server(self) -> LineFaults:
        """What goes wrong on the way from clients to the server; nothing at first.

        Setting it takes effect at once, for open connections too. Bytes are counted from then on.
        """
        return self._to_server.faults

    @to_server.setter
    def to_server(self, faults: LineFaults) -> None:
        self._to_server.faults = faults

    @property
    def to_client(self) -> LineFaults:
        """What goes wrong on the way from the server to clients; nothing at first."""
        return self._to_client.faults

    @to_client.setter
    def to_client(self, faults: LineFaults) -> None:
        self._to_client.faults = faults

    def reset(self) -> int:
        """Reset all open connections, on both sides, black hole or not; returns how many there were."""
        connections = list(self._open)
        for connection in connections:
            connection.reset()
        self._open.clear()
        return len(connections)

    def let_go(self) -> None:
        """Leave open connections to what they suffer, for good; those made later start without faults.

        So a connection can be in a black hole while its successor is not. `reset` still reaches it.
        """
        self._to_server, self._to_client = Line(), Line()

    def go_down(self) -> None:
        """Refuse further connections; those that are open stay. Nobody else gets the port meanwhile."""
        self._up = trio.Event()
        self._listener.close()
        self._listener = _bound(self.port)  # bound, and not listening: the system refuses for us

    def come_back(self) -> None:
        """Accept connections again, on the same port."""
        self._listener.listen()
        self._up.set()

    async def serve(self) -> None:
        """Accept and carry connections. Never returns unless cancelled. `open_proxy` calls it."""
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    nursery.start_soon(self._carry, await self._accept(), self.accepted)
        finally:
            self._listener.close()

    async def _accept(self) -> trio.SocketStream:
        while True:
            await self._up.wait()
            try:
                accepted, _ = await self._listener.accept()
            except trio.ClosedResourceError:  # it went down
                continue
            self.accepted += 1
            return trio.SocketStream(accepted)

    async def _carry(self, client: trio.SocketStream, number: int) -> None:
        connection = _Connection(client, self._to_server, self._to_client, f"{self.seed} {number}")
        self._open.add(connection)
        try:
            await connection.carry(*self.server)
        finally:
            self._open.discard(connection)


def _bound(port: int) -> trio.socket.SocketType:
    """Return a socket that has a port and does not listen."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((_HERE, port))
    return trio.socket.from_stdlib_socket(bound)


@asynccontextmanager
async def open_proxy(host: str, port: int, *, seed: int = 0) -> AsyncGenerator[Proxy]:
    """Pass connections on to a server while inside, with the faults that the test sets.

    Clients connect to 127.0.0.1, port `proxy.port`. A client is accepted before the server is asked: where the
    server refuses, the client's connection is reset. Bytes are passed on as they are, so TLS goes through.
    Of each connection and direction at most 1 MiB is under way; then the sender has to wait.

    Args:
        host: Where the server is.
        port: Its port.
        seed: What chance is drawn from: with the same seed, the n-th connection has the same jitter.

    Raises:
        OSError: if there is no free port.

    Cancellation: Is a checkpoint. On exit, whatever is open is closed.
    """
    proxy = Proxy((host, port), seed)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(proxy.serve)
            yield proxy
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        error = group.exceptions[0]  # what the test raised: the nursery is none of its business
        raise error from error.__cause__
