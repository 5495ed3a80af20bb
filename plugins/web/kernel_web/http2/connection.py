"""One connection of HTTP/2: its table of streams, what its client may do, and its end.

What h2 and its events mean is in `protocol`, what the connection says in `outlet`, what a stream carries in `lane`.
"""

from __future__ import annotations

import functools
import time
from math import inf
from typing import Any, Final, final

import h2.events
import h2.exceptions
import trio
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from typing_extensions import override

from ..asgi.call import only_gone
from ..asgi.own import status_without_route
from ..asgi.routes import Route
from ..asgi.scope import request_scope, scope_without_route, split_target
from ..asgi.shared import Shared
from ..asgi.speaker import Speaker
from ..websocket.handshake import refusal
from ..websocket.socket import WebSocket
from ..wire.channel import Channel
from ..wire.turns import Pieces
from .lane import Lane
from .leftovers import Leftovers
from .outlet import PLENTY, Outlet
from .protocol import Fields, asked_for, is_sound, parted
from .stream import Stream, give
from .tunnel import Tunnel

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
RUNNING_MAX: Final = 200
"""Requests of one connection at a time, cancelled ones that still run included; a client that resets faster than
requests can end is cut off."""
SMALL: Final = 512
"""Bytes of frames that are taken at once, whatever they cost."""
LINGER: Final = 1.0
"""Seconds in which a client that is still sending may read the goodbye."""
LINGER_BYTES: Final = 1024 * 1024
"""Bytes that it may send meanwhile."""


@final
class Http2(Speaker):
    """A client that speaks HTTP/2."""

    __slots__ = (
        "_base",
        "_closing",
        "_lanes",
        "_leftovers",
        "_opening",
        "_outlet",
        "_patience",
        "_read_until",
        "_running",
        "_shared",
        "channel",
        "protocol",
    )

    def __init__(self, shared: Shared, channel: Channel, base: dict[str, Any], opening: bytes = b"") -> None:
        self._shared = shared
        self.channel = channel
        self._base = base
        self._opening = opening
        self._running: dict[Stream | WebSocket, Lane] = {}
        self._lanes: dict[int, tuple[Stream | WebSocket, Lane]] = {}
        """By the id of their stream; gone as soon as the client has nothing to do with them any more."""
        self._leftovers = Leftovers(shared, self._after)
        self._closing = False
        self._patience = LINGER_BYTES
        """Bytes that are read after the goodbye, so that it arrives."""
        self._read_until = shared.clock.now + shared.config.header_timeout
        self._outlet = Outlet(shared, channel, self._running, self._after)
        self.protocol = self._outlet.protocol

    @override
    async def run(self) -> None:
        self.protocol.initiate_connection()
        self.protocol.increment_flow_control_window(PLENTY)
        async with trio.open_nursery() as self._outlet.nursery:
            try:
                await self._read()
            finally:
                for call, lane in list(self._running.items()):
                    _leave(call, lane)

    async def _read(self) -> None:
        """Read until the client closes, breaks the rules, or is told to go."""
        await self._take_in(self._opening)
        while not (self.channel.closed or self.channel.eof or self._patience < 0):
            if self._closing and (self.channel.has_unsent or self._read_until == inf):
                await self._let_take()
            data = await self.channel.read()
            if data and self._closing:
                self._patience -= len(data)
            elif data:
                await self._take_in(data)

    async def _take_in(self, data: bytes) -> None:  # noqa: ASYNC910  suspends only to wait
        """Take what the client sent, much of it over several turns: thousands of small frames may have come at once."""
        if len(data) <= SMALL:
            self._feed(data)
            await self._answer()
            return
        pieces = Pieces(data)
        while pieces and not self._closing:
            await self._shared.turns.take(pieces, self._feed)
            await self._answer()

    async def _answer(self) -> None:  # noqa: ASYNC910  suspends only to wait
        """Send what h2 says to that."""
        if not self._closing:
            await self._outlet.flush()

    async def _let_take(self) -> None:
        """Let a client that is told to go take what was said to it; then it gets a moment more."""
        await self.channel.flush()
        self._read_until = self._shared.clock.now + LINGER

    def _feed(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            events = self.protocol.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            is_told = self.protocol.state_machine.state is ConnectionState.CLOSED  # not of a preface that is wrong
            self._break(error.error_code, is_told=is_told)
            return
        if not self._outlet.allowance.spend(events):
            self._break(ErrorCodes.ENHANCE_YOUR_CALM)
            return
        for event in events:
            self._take(event)
        if self.protocol.client_leaves and not self._is_busy:
            self._close()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._begin(event)
        elif isinstance(event, h2.events.DataReceived):
            self._take_data(event)
        elif isinstance(event, h2.events.StreamEnded):
            self._leftovers.end(event.stream_id)
            if event.stream_id in self._lanes:
                self._lanes[event.stream_id][1].end()
        elif isinstance(event, h2.events.StreamReset):
            self._leftovers.end(event.stream_id)
            if event.stream_id in self._lanes:
                _leave(*self._lanes[event.stream_id])
        elif isinstance(event, h2.events.WindowUpdated) and event.stream_id:
            if event.stream_id in self._lanes:
                self._lanes[event.stream_id][1].wake()
        elif isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            for _, lane in self._lanes.values():
                lane.wake()
        elif isinstance(event, h2.events.ConnectionTerminated):
            self._close()

    def _take_data(self, event: h2.events.DataReceived) -> None:
        """Hand a piece of body on; what a request takes is acknowledged later, the rest now."""
        call, lane = self._lanes.get(event.stream_id, (None, None))
        now = event.flow_controlled_length
        if call is not None and lane is not None and not call.gone and event.data:
            now -= len(event.data)
            if isinstance(call, Stream):
                call.take(event.data)
            else:
                lane.put(event.data)
        if now:
            self._leftovers.put(event.stream_id)
            self._outlet.acknowledge(event.stream_id, now)

    # --- requests -----------------------------------------------------------------------------------------------

    def _begin(self, event: h2.events.RequestReceived) -> None:
        """Start a request, or refuse it."""
        stream_id, lane = event.stream_id, Lane(self._outlet, event.stream_id)
        lane.ended = event.stream_ended is not None
        pseudo, fields = parted(event.headers)
        if self._shared.stopping or self._closing:
            self._outlet.reset(stream_id, ErrorCodes.REFUSED_STREAM)
        elif not is_sound(pseudo, fields):
            self._note_without_route(*asked_for(pseudo), fields, 0, 0)
            self._outlet.reset(stream_id, ErrorCodes.PROTOCOL_ERROR)
        elif len(self._running) >= RUNNING_MAX:
            self._break(ErrorCodes.ENHANCE_YOUR_CALM)
            self.channel.abort()
        else:
            self._route(lane, pseudo, fields)

    def _route(self, lane: Lane, pseudo: dict[bytes, bytes], fields: Fields) -> None:
        shared, target = self._shared, split_target(pseudo[b":path"])
        method = pseudo[b":method"].decode()
        route = shared.routes.find(target[0], "" if method == "CONNECT" else method)
        status = self._refusal(route, target[1], fields)
        if route is None or status:
            sent = give(lane, status, shared.clock.fields, is_head=method == "HEAD")
            self._note_without_route(method, target[1], fields, status, sent)
            if self._leftovers.add(lane):
                self._read_until = inf
            return
        scope = request_scope(shared, self._base, route, target, fields, "2")
        if method == "CONNECT":
            self._open_websocket(lane, scope, route)
        else:
            scope["method"] = method
            stream = Stream(self._shared, scope, route, lane)
            self._start(stream, lane, stream.run)

    def _note_without_route(self, method: str, path: bytes, fields: Fields, status: int, sent: int) -> None:
        """Take note of what no application was asked for."""
        shared = self._shared
        if shared.ended.is_watched:
            scope = scope_without_route(shared, self._base, method, path, fields, "2")
            shared.note(scope, "", time.perf_counter(), status, sent)

    def _refusal(self, route: Route | None, path: bytes, fields: Fields) -> int:
        """Return the status of a request that no application sees, or 0."""
        if not (self._shared.hosts.allows_all or self._shared.hosts.allows(fields)):
            return 400
        if route is None:
            return status_without_route(path)
        length = next((int(value) for name, value in fields if name == b"content-length" and value.isdigit()), 0)
        return 413 if length > route.max_body_bytes else 0

    def _open_websocket(self, lane: Lane, scope: dict[str, Any], route: Route) -> None:
        status = refusal(scope["headers"])
        if status:
            sent = give(lane, status, self._shared.clock.fields)
            self._shared.note(scope, route.worker_id, time.perf_counter(), status, sent)
            return
        scope["type"] = "websocket"
        scope["scheme"] = "ws" if scope["scheme"] == "http" else "wss"
        tunnel = Tunnel(lane, self._shared.clock.fields)
        socket = WebSocket(self._shared, scope, route, tunnel, scope["headers"])
        self._start(socket, lane, functools.partial(tunnel.carry, socket.run))

    def _start(self, call: Stream | WebSocket, lane: Lane, run: Any) -> None:  # noqa: ANN401  an async function
        self._running[call] = lane
        self._lanes[lane.id] = call, lane
        self._read_until = inf
        if (nursery := self._outlet.nursery) is not None:
            nursery.start_soon(self._run, call, lane, run)

    async def _run(self, call: Stream | WebSocket, lane: Lane, run: Any) -> None:  # noqa: ASYNC910, ANN401  an async function
        try:
            await run()
        except Exception as error:
            if not only_gone(error):
                self._shared.context.log.exception("a request failed", exc_info=error)
            lane.reset(ErrorCodes.INTERNAL_ERROR)
        finally:
            self._note(call, lane)
            del self._running[call]
            self._lanes.pop(lane.id, None)
            self._leftovers.add(lane)
            self._after()

    def _note(self, call: Stream | WebSocket, lane: Lane) -> None:
        if (ended := self._shared.ended).is_watched:
            ended.add(call.scope, call.route.worker_id, call.began, call.status, lane.arrived, call.sent)

    @property
    def _is_busy(self) -> bool:
        """Whether a request runs, or the last of an answer has yet to be sent."""
        return bool(self._running or self._leftovers) or self._outlet.writers > 0

    def _after(self) -> None:
        """Go on without a request that has ended."""
        if self._is_busy or self._closing:
            return
        if self._shared.stopping or self.protocol.client_leaves or self.channel.eof:
            self._close()
        else:
            self._read_until = self._shared.clock.now + self._shared.config.keep_alive_timeout

    # --- deadlines and the end ----------------------------------------------------------------------------------

    @override
    def look(self, now: float) -> None:
        if self._read_until <= now:
            if self._closing:
                self.channel.abort()
            else:
                self._close()
        elif self._read_until == self.channel.write_until == inf and not self._is_busy:  # as over HTTP/1.1
            self._shared.context.log.error("a connection had no deadline, and is closed")
            self.channel.abort()
        for stream_id in self._leftovers.drop_late(now):
            self._outlet.reset(stream_id, ErrorCodes.NO_ERROR)
            self._after()
        if not self._running:
            self.protocol.decoder.forget()
            self.protocol.encoder.forget()
        for call, lane in list(self._running.items()):
            if lane.write_until <= now:
                lane.reset(ErrorCodes.CANCEL)
                call.gone = True
            if isinstance(call, WebSocket):
                call.look(now)
            else:
                call.look(now, self.channel.write_until)

    @override
    def stop(self) -> None:
        for call in list(self._running):
            if isinstance(call, WebSocket):
                call.go_away()
        self._leftovers.hurry()
        if not self._is_busy:
            self._close()
        elif not self._closing:
            self._outlet.say_goodbye()

    def _close(self) -> None:
        """Say goodbye and close; a client that is still sending gets a moment to read it."""
        if not self._closing:
            self._closing = True
            self._outlet.say_goodbye()
            self._end()
            if self.channel.has_unsent:  # and then `write_timeout` for each piece
                self._read_until = inf
            elif not self.channel.read_nowait():
                self._patience = -1
            self.channel.wake()

    def _break(self, code: ErrorCodes, *, is_told: bool = False) -> None:
        """End the connection of a client that breaks the rules; h2 may have said so already."""
        if not self._closing:
            self._closing = True
            if not is_told:
                self.protocol.close_connection(code)
            self._outlet.flush_nowait()
            self._end()

    def _end(self) -> None:
        for call, lane in list(self._running.items()):
            _leave(call, lane)
        self.channel.shut()
        self._read_until = self._shared.clock.now + LINGER


def _leave(call: Stream | WebSocket, lane: Lane) -> None:
    if isinstance(call, Stream):
        call.leave()
    else:
        lane.lose()
