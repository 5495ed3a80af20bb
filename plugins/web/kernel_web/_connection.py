"""One connection: reading and writing with deadlines, and handing bytes to hypercorn's protocols.

hypercorn's own `TCPServer` has no deadline on writes, so one client that stops reading would hold a stop for ever.
This class takes its place, and that of hypercorn's task group: streams ask it to `spawn_app` a request.

All bytes go through a buffer that one task, `_pump`, sends. An application that is cancelled while it sends therefore
never leaves half a frame behind, and the head and body of a small answer leave in one packet.
"""

from __future__ import annotations

import math
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast, final

import attrs
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H2ProtocolAssumedError
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup

from ._protocols import Http1, Http2
from ._request import Request

if TYPE_CHECKING:
    from ._server import Server

READ_BYTES: Final = 64 * 1024
PIECE: Final = 64 * 1024
"""What must be taken within one `write_timeout`."""
HIGH_WATER: Final = 64 * 1024
"""Bytes in the buffer above which writers wait."""
LINGER: Final = 1.0
"""Seconds in which a client that is still sending may read its answer before the connection is closed."""
REQUESTS_MAX: Final = 200
"""Requests of one connection at a time, cancelled ones that still run included; a client that resets faster than
requests can end is cut off."""
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


async def _no_app(*_: object) -> None:
    """Stands where hypercorn keeps an application: requests are routed in `spawn_app`."""
    await trio.lowlevel.checkpoint()


@final
@attrs.define(eq=False)
class Connection:
    """A client. `run` is its life."""

    server: Server
    _transport: trio.SocketStream
    broken: bool = attrs.field(default=False, init=False)
    """Nothing can be sent any more."""
    lingers: bool = attrs.field(default=False, init=False)
    """The client may still be sending what nobody will read."""
    _stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = attrs.field(init=False)
    _protocol: Http1 | Http2 | None = attrs.field(default=None, init=False)
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    _requests: dict[Request, None] = attrs.field(factory=dict["Request", None], init=False)
    _reading: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _read_to_end: bool = attrs.field(default=False, init=False)
    _idle: bool = attrs.field(default=True, init=False)
    _heard: bool = attrs.field(default=True, init=False)
    """Whether the next request has begun to arrive; true at the start, so that its deadline does not move."""
    _idle_until: float = attrs.field(default=math.inf, init=False)
    _closing: bool = attrs.field(default=False, init=False)
    """What is in the buffer is sent, and then no more."""
    _shut_down: bool = attrs.field(default=False, init=False)
    """The buffer is empty and the sending side closed."""
    _out: deque[bytes] = attrs.field(factory=deque[bytes], init=False)
    _out_bytes: int = attrs.field(default=0, init=False)
    _more: trio.Event = attrs.field(factory=trio.Event, init=False)
    _room: trio.Event = attrs.field(factory=trio.Event, init=False)
    _large: bool = attrs.field(default=False, init=False)
    """Whether more than `max_header_bytes` arrived at once, so that headers have to be measured."""

    def __attrs_post_init__(self) -> None:
        self._stream = self._transport

    # --- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until the client or the server ends it; nothing but cancellation gets out."""
        try:
            async with trio.open_nursery() as self._nursery:
                if self.server.terminated:
                    return
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
        nursery.start_soon(self._pump)
        kind = Http2 if alpn == "h2" else Http1
        self._protocol = self._speak(kind)
        await self._protocol.initiate()
        await self._read()
        self._read_to_end = True
        await self._protocol.handle(Closed())
        self._end_if_over()

    async def _shake_hands(self) -> str | None:
        """Return the protocol that TLS agreed on, None if the client failed at it."""
        if self.server.tls is None:
            return "http/1.1"
        stream = trio.SSLStream(self._transport, self.server.tls, server_side=True, https_compatible=True)
        with trio.move_on_after(self.server.config.header_timeout):
            try:
                await stream.do_handshake()
            except _BROKEN:
                return None
            self._stream = stream
            return stream.selected_alpn_protocol() or "http/1.1"
        return None

    def _speak(self, kind: type[Http1 | Http2]) -> Http1 | Http2:
        return kind(
            cast("AppWrapper", _no_app),
            self.server.hypercorn,
            self.server.hypercorn_context,
            cast("TaskGroup", self),  # all of it that protocols use
            ConnectionState({}),
            self.server.tls is not None,
            _socket_name(self._transport.socket.getpeername()),
            _socket_name(self._transport.socket.getsockname()),
            self.write_event,
        )

    def _end_if_over(self) -> None:
        """End the tasks that only serve others (the pump, pings) when there is nobody left to serve."""
        if self._read_to_end and not self._requests:
            if self._shut_down:
                self._end()
            else:
                self.close()

    def abort(self, *, reset: bool = False) -> None:
        """Close the socket at once, whoever is using it.

        Args:
            reset: Whether the client must not take what it got for a whole answer.
        """
        self.broken = True
        if reset and self.server.tls is None:
            with suppress(OSError):
                self._transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.socket.close()
        self._out.clear()
        self._out_bytes = 0
        self._more.set()
        self._room.set()
        self._reading.cancel()
        for request in self._requests:
            request.wake()

    def close(self) -> None:
        """Send what is in the buffer, then close. May be called again."""
        self._closing = True
        self._more.set()

    # --- reading ------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read until the client closes, breaks the rules, or is told to go."""
        while not self.broken:
            data = await self._receive()
            if data is None:
                if not await self._overdue():
                    return
            elif not data:
                if not self.lingers:
                    await self._feed(data)
                return
            elif not self.lingers:
                await self._feed(data)

    async def _receive(self) -> bytes | None:
        """Return what the client sent, nothing at its end, None if it took too long."""
        with trio.CancelScope(deadline=self._deadline()) as self._reading:
            try:
                return bytes(await self._stream.receive_some(READ_BYTES))
            except _BROKEN:
                return b""
        return None

    async def _feed(self, data: bytes) -> None:
        self._large = len(data) > self.server.config.max_header_bytes
        if self._idle and not self._heard:
            self._heard = True
            self._idle_until = trio.current_time() + self.server.config.header_timeout
        if self._protocol is None:
            return
        try:
            await self._protocol.handle(RawData(data))
        except H2ProtocolAssumedError as error:
            self._protocol = self._speak(Http2)
            await self._protocol.initiate()
            await self._protocol.handle(RawData(error.data))

    def _deadline(self) -> float:
        if self._idle or self.lingers:
            return self._idle_until
        return min((request.body_until for request in self._requests), default=math.inf)

    def schedule(self) -> None:
        """Take note that a deadline has changed."""
        self._reading.deadline = self._deadline()

    async def _overdue(self) -> bool:
        """Deal with what was not read in time; return whether reading goes on."""
        if self.broken or self.lingers or self._idle:
            return False
        now = trio.current_time()
        for request in [request for request in self._requests if request.body_until <= now]:
            await request.refuse(HTTPStatus.REQUEST_TIMEOUT)
        return True

    # --- writing ------------------------------------------------------------------------------------------------

    async def write_event(self, event: Event) -> None:
        """Do what a protocol asks for: send, close, or note whether a request is being worked on."""
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            self._close_after_answer()
        elif isinstance(event, Updated):
            self._set_idle(event.idle)

    async def _write(self, data: bytes) -> None:
        if self.broken or self._closing or not data:
            return
        self._out.append(data)
        self._out_bytes += len(data)
        self._more.set()
        while self._out_bytes > HIGH_WATER and not self.broken:
            await self._room.wait()

    async def _pump(self) -> None:
        """Send the buffer for as long as the connection lives, then close its sending side."""
        while not self.broken:
            if self._out:
                await self._send_piece()
            elif self._closing:
                await self._shut()
                return
            else:
                self._more = trio.Event()
                await self._more.wait()
        if self._protocol is not None:
            await self._protocol.handle(Closed())

    async def _send_piece(self) -> None:
        data = self._out.popleft() if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        with memoryview(data) as view:
            for at in range(0, len(view), PIECE):
                with trio.move_on_after(self.server.config.write_timeout) as scope:
                    try:
                        await self._stream.send_all(view[at : at + PIECE])
                    except _BROKEN:
                        self.abort()
                if scope.cancelled_caught:
                    self.abort()
                if self.broken:
                    return
        self._out_bytes -= len(data)
        self._room.set()
        self._room = trio.Event()

    async def _shut(self) -> None:
        """Close; a client that is still sending gets a moment to read its answer, which a reset would destroy."""
        with trio.move_on_after(LINGER), suppress(*_BROKEN):
            if self._stream is self._transport:
                await self._transport.send_eof()
            elif not self.lingers:
                await self._stream.aclose()
        self._shut_down = True
        if self.lingers and not self._read_to_end:
            self._idle_until = trio.current_time() + LINGER
            self.schedule()
        else:
            self._end()

    def _end(self) -> None:
        self._reading.cancel()
        self.abort()
        if not self._requests and self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def _close_after_answer(self) -> None:
        self.lingers = self.lingers or (self._protocol is not None and self._protocol.expects_more)
        self.close()

    def _set_idle(self, idle: bool) -> None:  # noqa: FBT001  as hypercorn says it
        self._idle = idle
        if not idle:
            return
        self._heard = False
        self._idle_until = trio.current_time() + self.server.config.keep_alive_timeout
        self.schedule()
        if self.server.terminated:
            self.close()

    # --- requests -----------------------------------------------------------------------------------------------

    async def spawn_app(
        self,
        app: AppWrapper,
        config: HypercornConfig,
        scope: Any,  # noqa: ANN401
        send: Callable[[Any], Awaitable[None]],
    ) -> Callable[[Any], Awaitable[None]]:
        """Start a request, or its refusal; return what takes the rest of what its client sends."""
        is_websocket = scope["type"] == "websocket"
        settings = self.server.config
        until = math.inf if is_websocket else trio.current_time() + settings.body_timeout
        stream_id = getattr(send, "__self__").stream_id  # noqa: B009  hypercorn passes a method of its stream
        request = Request(self, scope, send, stream_id, isinstance(self._protocol, Http2), until)
        self._requests[request] = None
        self._idle = False
        refusal = self._refusal(request)
        if self._nursery is None or len(self._requests) > REQUESTS_MAX:
            self.abort()
        elif refusal:
            request.gone = False
            self._nursery.start_soon(self._refuse, request, refusal)
        else:
            self._nursery.start_soon(request.run)
        return request.put

    def _refusal(self, request: Request) -> int:
        """Return the status of a request that no application sees, or 0; finds the route of one that may be seen."""
        scope = request.scope
        headers = scope["headers"]
        settings = self.server.config
        if self._large and sum(len(name) + len(value) for name, value in headers) > settings.max_header_bytes:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if scope["http_version"] not in {"1.1", "2", "1.0"}:
            return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
        length = _content_length(headers)
        if length < 0:
            self.lingers = True
            return HTTPStatus.BAD_REQUEST
        if length > settings.max_body_bytes:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        request.route = self.server.routes.find(scope["path"])
        return 0 if request.route else HTTPStatus.NOT_FOUND

    async def _refuse(self, request: Request, status: int) -> None:
        await request.refuse(status)
        await request.end(status)

    def leave(self, request: Request) -> None:
        """Take note that a request has ended."""
        del self._requests[request]
        self._end_if_over()

    def spawn(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:  # noqa: ANN401
        """Start a task of a protocol, which ends with the connection."""
        if self._nursery is not None:
            self._nursery.start_soon(function, *args)

    async def taken(self, request: Request, size: int) -> None:
        """Take note that an application has received some body: over HTTP/2 the client may send as much again."""
        if isinstance(self._protocol, Http2) and request.is_h2:
            await self._protocol.acknowledge(request.stream_id, size)

    async def reset(self, request: Request) -> None:
        """Make the client of one request notice that its answer is not complete."""
        if isinstance(self._protocol, Http2):
            await self._protocol.reset(request.stream_id)
        else:
            self.abort(reset=True)

    def terminate(self) -> None:
        """Begin to stop: close if idle; websockets are told, and requests go on."""
        if self._protocol is None:
            self.abort()
        elif self._nursery is not None and not self.broken:  # a broken one may be past its last task
            self._nursery.start_soon(self._say_goodbye)

    async def _say_goodbye(self) -> None:
        if isinstance(self._protocol, Http2):
            await self._protocol.say_goodbye()
        if self._idle:
            self.close()
        for request in [request for request in self._requests if request.is_websocket]:
            await request.go_away()


def _socket_name(name: Any) -> tuple[str, int] | None:  # noqa: ANN401  a pair, a quadruple or a path
    return cast("tuple[str, int]", name[:2]) if isinstance(name, tuple) else None


def _content_length(headers: Any) -> int:  # noqa: ANN401
    """Return the declared length of a body, 0 if there is none, -1 if it is told in two ways (request smuggling)."""
    length = 0
    chunked = declared = False
    for name, value in headers:
        if name == b"content-length":
            length, declared = int(value), True
        elif name == b"transfer-encoding":
            chunked = True
    return -1 if chunked and declared else length
