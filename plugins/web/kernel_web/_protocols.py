"""hypercorn's protocols with what a server at the edge needs besides: limits, resets and a way to say goodbye."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, cast, final

import h2.errors
import h2.events
import h2.exceptions
import h11
import priority.priority
from hpack.struct import HeaderTuple
from hypercorn.config import Config
from hypercorn.events import RawData
from hypercorn.protocol.events import Body, EndBody, EndData, Request, StreamClosed, Trailers
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BUFFER_LOW_WATER, BufferCompleteError, H2Protocol, StreamBuffer
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import FrameTooLargeError, WSStream
from hypercorn.utils import filter_pseudo_headers
from hyperframe.frame import GoAwayFrame
from typing_extensions import override
from wsproto.connection import ConnectionState as WebSocketState
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason


class Settings(Config):
    """hypercorn's configuration and what this package adds to it."""

    h2c: bool = False


Headers = list[tuple[bytes, bytes]]
CONNECTION_WINDOW: Final = 256 * 65535
"""Bytes that the streams of one connection may have unread in all: more than each of them may have, taken together."""
_NOT_PASSED_ON: Final = b"sec-websocket-extensions"
"""Compression is not offered: a few bytes of it may become gigabytes before any limit is looked at."""


@final
class WebSocket(WSStream):
    """A websocket that tells each side why the other closed it."""

    app_put: Callable[[Any], Awaitable[None]] | None
    buffer: Any  # hypercorn leaves parts of it untyped

    @override
    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, BytesMessage | TextMessage):
                await self._take(event)
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                await self._take_close(event)

    async def _take(self, message: BytesMessage | TextMessage) -> None:
        try:
            self.buffer.extend(message)
        except FrameTooLargeError:
            await self._take_close(CloseConnection(code=CloseReason.MESSAGE_TOO_BIG))
            return
        if message.message_finished and self.app_put is not None:
            await self.app_put(self.buffer.to_message())
            self.buffer.clear()

    async def _take_close(self, event: CloseConnection) -> None:
        """Answer the client's close, or tell it what it did wrong; either way it is over."""
        wrong = self.connection.state is WebSocketState.OPEN
        if wrong or self.connection.state is WebSocketState.REMOTE_CLOSING:
            await self._send_wsproto_event(event if wrong else event.response())
        if self.app_put is not None:
            await self.app_put({"type": "websocket.disconnect", "code": event.code, "reason": event.reason or ""})
        await self.send(StreamClosed(stream_id=self.stream_id))


@final
class Http1(H11Protocol):
    """HTTP/1.1 on one connection."""

    @property
    def expects_more(self) -> bool:
        """Whether the client may still be sending when its answer is complete."""
        connection = self.connection
        if isinstance(connection, H11WSConnection):
            return False
        return connection.their_state not in {h11.IDLE, h11.DONE, h11.CLOSED} or bool(connection.trailing_data[0])

    @override
    async def _check_protocol(self, event: h11.Request) -> None:
        """Change to HTTP/2 only with a client that knows it is spoken; an upgrade could smuggle requests past a proxy."""
        if event.method == b"PRI" and isinstance(self.config, Settings) and self.config.h2c:
            await super()._check_protocol(event)

    @override
    async def _create_stream(self, request: h11.Request) -> None:
        headers = list(request.headers)
        is_websocket = _wants_websocket(request.method, headers)
        if is_websocket:
            self.connection = H11WSConnection(cast("h11.Connection", self.connection))
        self.stream = _stream(self, is_websocket=is_websocket, stream_id=STREAM_ID)
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=_without_extensions(headers) if is_websocket else headers,
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=_origin_form(request.target),
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1


@final
class Buffer(StreamBuffer):
    """What an answer may run ahead of its client.

    hypercorn's own lets a writer go on whenever little was taken, which is also the case when the client takes nothing.
    """

    @override
    async def push(self, data: bytes) -> None:
        if self._complete:
            raise BufferCompleteError
        self.buffer.extend(data)
        await self._is_empty.clear()
        while len(self.buffer) >= BUFFER_HIGH_WATER and not self._complete:
            await self._paused.clear()
            await self._paused.wait()

    @override
    async def pop(self, max_length: int) -> bytes:
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


@final
class Http2(H2Protocol):
    """HTTP/2 on one connection."""

    @override
    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # handed on as they are
        # h2 would go by this limit only once the client has acknowledged it.
        self.connection.decoder.max_header_list_size = self.config.h2_max_header_list_size
        self._ended: set[int] = set()
        """Streams whose answer is complete, but perhaps not sent yet."""

    @property
    def expects_more(self) -> bool:
        """Whether the client may still be sending when the connection is to be closed."""
        return False

    @override
    async def initiate(self, headers: Headers | None = None, settings: bytes | None = None) -> None:
        await super().initiate(headers, settings)
        # Streams that wait unread must not use up what all streams of the connection share: that would be a deadlock.
        self.connection.increment_flow_control_window(CONNECTION_WINDOW)
        await self._flush()

    async def acknowledge(self, stream_id: int, size: int) -> None:
        """Let the client send as much again."""
        with suppress(h2.exceptions.ProtocolError):
            self.connection.acknowledge_received_data(size, stream_id)
            await self._flush()

    async def reset(self, stream_id: int) -> None:
        """End a stream whose answer is not complete."""
        with suppress(h2.exceptions.ProtocolError, KeyError):
            self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
            await self._flush()
        self._ended.add(stream_id)
        await self._window_updated(stream_id)  # wakes whoever waits to send on it

    async def say_goodbye(self) -> None:
        """Tell the client to open no more streams here; those it has go on."""
        # h2 can only say so by ending the connection, so the frame is made by hand.
        last = self.connection.highest_inbound_stream_id
        frame = GoAwayFrame(stream_id=0, last_stream_id=last, error_code=int(h2.errors.ErrorCodes.NO_ERROR))
        await self._flush()
        await self.send(RawData(frame.serialize()))

    @override
    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, EndBody | EndData | Trailers):
            self._ended.add(event.stream_id)
        elif isinstance(event, StreamClosed) and event.stream_id in self.streams:
            if event.stream_id not in self._ended:
                await self.reset(event.stream_id)
            self._ended.discard(event.stream_id)
        await super().stream_send(event)

    @override
    async def _handle_events(self, events: Sequence[h2.events.Event]) -> None:
        for event in events:
            # What is wrong with one stream, or came too late for it, must not cost the others.
            with suppress(h2.exceptions.StreamClosedError, h2.exceptions.NoSuchStreamError):
                if isinstance(event, h2.events.DataReceived):
                    await self._take_data(event)
                elif not isinstance(event, h2.events.RequestReceived) or _is_sound(event):
                    await super()._handle_events([event])
                else:
                    self.connection.reset_stream(event.stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
        await self._flush()

    async def _take_data(self, event: h2.events.DataReceived) -> None:
        """Hand a piece of body on; what a request received is acknowledged later, the rest now."""
        stream = self.streams.get(event.stream_id)
        later = len(event.data) if isinstance(stream, HTTPStream) and not stream.closed else 0
        if stream is not None and event.data:
            await stream.handle(Body(stream_id=event.stream_id, data=event.data))
        if event.flow_controlled_length > later:
            self.connection.acknowledge_received_data(event.flow_controlled_length - later, event.stream_id)

    @override
    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        stream_id = request.stream_id
        headers = cast("Sequence[HeaderTuple]", request.headers)
        pseudo = {name: value for name, value in headers if name.startswith(b":")}
        is_websocket = pseudo[b":method"] == b"CONNECT"
        stream = _stream(self, is_websocket=is_websocket, stream_id=stream_id)
        self.streams[stream_id] = stream
        self.stream_buffers[stream_id] = Buffer(self.context.event_class)
        with suppress(priority.priority.DuplicateStreamError):  # its priority came before its headers
            self.priority.insert_stream(stream_id)
            self.priority.block(stream_id)
        plain = filter_pseudo_headers(cast("Headers", list(headers)))
        await stream.handle(
            Request(
                stream_id=stream_id,
                headers=_without_extensions(plain) if is_websocket else plain,
                http_version="2",
                method=pseudo[b":method"].decode("ascii").upper(),
                raw_path=pseudo[b":path"],
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1


def _stream(protocol: Http1 | Http2, *, is_websocket: bool, stream_id: int) -> HTTPStream | WSStream:
    kind = WebSocket if is_websocket else HTTPStream
    return kind(
        protocol.app,
        protocol.config,
        protocol.context,
        protocol.task_group,
        protocol.ssl,
        protocol.client,
        protocol.server,
        protocol.stream_send,
        stream_id,
    )


def _wants_websocket(method: bytes, headers: Headers) -> bool:
    if method != b"GET":
        return False
    found = {name: value.lower() for name, value in headers if name in {b"upgrade", b"connection"}}
    tokens = (token.strip() for token in found.get(b"connection", b"").split(b","))
    return found.get(b"upgrade", b"").strip() == b"websocket" and b"upgrade" in tokens


def _without_extensions(headers: Headers) -> Headers:
    return [(name, value) for name, value in headers if name != _NOT_PASSED_ON]


def _origin_form(target: bytes) -> bytes:
    """Return the path of a target that is a whole URL, as a client writes it that takes this for a proxy."""
    scheme, separator, rest = target.partition(b"://")
    if target.startswith(b"/") or not separator or scheme.lower() not in {b"http", b"https"}:
        return target
    return b"/" + rest.partition(b"/")[2]


def _is_sound(event: h2.events.RequestReceived) -> bool:
    """Whether a request has what hypercorn relies on; a CONNECT must be that of a websocket."""
    headers = dict(cast("Sequence[HeaderTuple]", event.headers or ()))
    path = headers.get(b":path", b"")
    is_proxying = headers.get(b":method") == b"CONNECT" and headers.get(b":protocol") != b"websocket"
    return path.startswith(b"/") and path.isascii() and not is_proxying
