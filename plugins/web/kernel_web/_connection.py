"""One connection: its life, reading with deadlines, and handing bytes to hypercorn's protocols.

hypercorn's own `TCPServer` has no deadline on writes, so one client that stops reading would hold a stop for ever.
This class takes its place; `Output` sends, and `Requests` is what protocols take for hypercorn's task group.
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast, final

import attrs
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H2ProtocolAssumedError
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup

from ._http1 import Http1
from ._http2 import Http2
from ._output import BROKEN, LINGER, Output
from ._requests import Requests

if TYPE_CHECKING:
    from ._server import Server

READ_BYTES: Final = 64 * 1024
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


async def _no_app(*_: object) -> None:
    """Stands where hypercorn keeps an application: requests are routed in `Requests`."""
    await trio.lowlevel.checkpoint()


@final
@attrs.define(eq=False, repr=False)
class Connection:
    """A client. `run` is its life."""

    server: Server
    _transport: trio.SocketStream
    requests: Requests = attrs.field(init=False)
    lingers: bool = attrs.field(default=False, init=False)
    """The client may still be sending what nobody will read."""
    got_much: bool = attrs.field(default=False, init=False)
    """Whether more than `max_header_bytes` arrived at once, so that headers have to be measured."""
    _output: Output = attrs.field(init=False)
    _protocol: Http1 | Http2 | None = attrs.field(default=None, init=False)
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    _reading: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _read_to_end: bool = attrs.field(default=False, init=False)
    _idle: bool = attrs.field(default=True, init=False)
    _heard: bool = attrs.field(default=True, init=False)
    """Whether the next request has begun to arrive; true at the start, so that its deadline does not move."""
    _idle_until: float = attrs.field(default=math.inf, init=False)
    _shut_down: bool = attrs.field(default=False, init=False)
    """All was sent and the sending side is closed."""

    def __attrs_post_init__(self) -> None:
        self.requests = Requests(self)
        self._output = Output(self._transport, self.server.config.write_timeout, self.abort)

    @property
    def broken(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._output.broken

    # --- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:  # noqa: ASYNC910  leaving a nursery is a checkpoint
        """Serve until the client or the server ends it; nothing but cancellation gets out."""
        try:
            async with trio.open_nursery() as self._nursery:
                if not self.server.terminated:
                    await self._serve(self._nursery)
        except Exception as error:
            self.server.context.log.exception("a connection failed", exc_info=error)
        finally:
            self.abort()
            self.server.forget(self)

    async def _serve(self, nursery: trio.Nursery) -> None:
        alpn = await self._shake_hands()
        if alpn is None:
            return
        self._idle_until = trio.current_time() + self.server.config.header_timeout
        nursery.start_soon(self._send)
        self._protocol = self._speak(Http2 if alpn == "h2" else Http1)
        await self._protocol.initiate()
        await self._read()
        self._read_to_end = True
        await self._protocol.handle(Closed())
        self.end_if_over()

    async def _shake_hands(self) -> str | None:
        """Return the protocol that TLS agreed on, None if the client failed at it."""
        await trio.lowlevel.checkpoint()
        if self.server.tls is None:
            return "http/1.1"
        stream = trio.SSLStream(self._transport, self.server.tls, server_side=True, https_compatible=True)
        with trio.move_on_after(self.server.config.header_timeout), suppress(*BROKEN):
            await stream.do_handshake()
            self._output.stream = stream
            return stream.selected_alpn_protocol() or "http/1.1"
        return None

    def _speak(self, kind: type[Http1 | Http2]) -> Http1 | Http2:
        return kind(
            cast("AppWrapper", _no_app),
            self.server.hypercorn,
            self.server.hypercorn_context,
            cast("TaskGroup", self.requests),  # all of it that protocols use
            ConnectionState({}),
            self.server.tls is not None,
            _socket_name(self._transport.socket.getpeername()),
            _socket_name(self._transport.socket.getsockname()),
            self.write_event,
        )

    async def _send(self) -> None:
        """Send for as long as the connection lives, then close its sending side."""
        await self._output.pump()
        if not self.broken:
            await self._output.shut(lingers=self.lingers)
            self._shut_down = True
            self._linger_or_end()
        elif self._protocol is not None:
            await self._protocol.handle(Closed())

    def _linger_or_end(self) -> None:
        if self.lingers and not self._read_to_end:  # a reset would destroy the answer that the client has yet to read
            self._idle_until = trio.current_time() + LINGER
            self.schedule()
        else:
            self._end()

    def end_if_over(self) -> None:
        """End the tasks that only serve others (sending, pings) when there is nobody left to serve."""
        if self._read_to_end and not self.requests:
            if self._shut_down:
                self._end()
            else:
                self.close()

    def _end(self) -> None:
        self.abort()
        if not self.requests and self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def abort(self, *, reset: bool = False) -> None:
        """Close the socket at once, whoever is using it. May be called again.

        Args:
            reset: Whether the client must not take what it got for a whole answer.
        """
        if reset and self.server.tls is None:
            with suppress(OSError):
                self._transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.socket.close()
        self._output.drop()
        self._reading.cancel()
        self.requests.abandon()

    def close(self) -> None:
        """Send what is in the buffer, then close. May be called again."""
        self._output.close()

    def terminate(self) -> None:
        """Begin to stop: close if idle; websockets are told, and requests go on."""
        if self._protocol is None:
            self.abort()
        elif not self.broken:  # a broken one may be past its last task
            self.spawn(self._say_goodbye, self._protocol)

    async def _say_goodbye(self, protocol: Http1 | Http2) -> None:
        if isinstance(protocol, Http2):
            await protocol.say_goodbye()
        if self._idle:
            self.close()
        await self.requests.say_goodbye()

    # --- reading ------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read until the client closes, breaks the rules, or is told to go."""
        await trio.lowlevel.checkpoint()
        while not self.broken:
            data = await self._receive()
            if data is None:
                if not self._waits_for_body():
                    return
                await self.requests.time_out()
                continue
            if not self.lingers:
                await self._feed(data)
            if not data:
                return

    def _waits_for_body(self) -> bool:
        return not (self.broken or self.lingers or self._idle)

    async def _receive(self) -> bytes | None:
        """Return what the client sent, nothing at its end, None if it took too long."""
        with trio.CancelScope(deadline=self._deadline()) as self._reading:
            try:
                return bytes(await self._output.stream.receive_some(READ_BYTES))
            except BROKEN:
                return b""  # noqa: ASYNC910  there is no next time
        return None

    async def _feed(self, data: bytes) -> None:
        self.got_much = len(data) > self.server.config.max_header_bytes
        if self._idle and not self._heard:
            self._heard = True
            self._idle_until = trio.current_time() + self.server.config.header_timeout
        try:
            await cast("Http1 | Http2", self._protocol).handle(RawData(data))
        except H2ProtocolAssumedError as error:
            self._protocol = protocol = self._speak(Http2)
            self._idle = True  # the opening looked like a request, but nothing is asked for yet
            await protocol.initiate()
            await protocol.handle(RawData(error.data))

    def _deadline(self) -> float:
        return self._idle_until if self._idle or self.lingers else self.requests.body_until

    def schedule(self) -> None:
        """Take note that a deadline has changed."""
        self._reading.deadline = self._deadline()

    # --- what protocols and requests ask for --------------------------------------------------------------------

    async def write_event(self, event: Event) -> None:  # noqa: ASYNC910  hypercorn's callback: a turn here would part head and body
        """Do what a protocol asks for: send, close, or note whether a request is being worked on."""
        if isinstance(event, RawData):
            await self._output.write(event.data)
        elif isinstance(event, Closed):
            self.lingers = self.lingers or (self._protocol is not None and self._protocol.expects_more)
            self.close()
        elif isinstance(event, Updated):
            self._set_idle(event.idle)

    def _set_idle(self, idle: bool) -> None:  # noqa: FBT001  as hypercorn says it
        self._idle = idle
        if not idle:
            return
        self._heard = False
        self._idle_until = trio.current_time() + self.server.config.keep_alive_timeout
        self.schedule()
        if self.server.terminated:
            self.close()

    def begin(self, function: Callable[..., Awaitable[Any]], *args: object) -> None:
        """Start the task of a request."""
        self._idle = False
        self.spawn(function, *args)

    def spawn(self, function: Callable[..., Awaitable[Any]], *args: object) -> None:
        """Start a task that ends with the connection."""
        if self._nursery is not None:
            self._nursery.start_soon(function, *args)

    async def taken(self, stream_id: int, size: int) -> None:  # noqa: ASYNC910  HTTP/1.1 has nothing to say
        """Take note that an application has received some body: over HTTP/2 the client may send as much again."""
        if isinstance(self._protocol, Http2):
            await self._protocol.acknowledge(stream_id, size)

    async def reset(self, stream_id: int) -> None:  # noqa: ASYNC910  closing a socket waits for nothing
        """Make the client of one request notice that its answer is not complete."""
        if isinstance(self._protocol, Http2):
            await self._protocol.reset(stream_id)
        else:
            self.abort(reset=True)


def _socket_name(name: Any) -> tuple[str, int] | None:  # noqa: ANN401  a pair, a quadruple or a path
    return cast("tuple[str, int]", name[:2]) if isinstance(name, tuple) else None
