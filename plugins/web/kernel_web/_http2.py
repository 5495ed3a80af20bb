"""hypercorn's HTTP/2 with what a server at the edge needs besides: limits, resets and a way to say goodbye."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, cast, final

import h2.errors
import h2.events
import h2.exceptions
import priority.priority
from hpack.struct import HeaderTuple
from hypercorn.events import Closed, RawData
from hypercorn.protocol.events import Body, Data, EndBody, EndData, Request, StreamClosed, Trailers
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BUFFER_LOW_WATER, BufferCompleteError, H2Protocol, StreamBuffer
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.utils import filter_pseudo_headers
from hyperframe.frame import GoAwayFrame
from typing_extensions import override

from ._allowance import Allowance
from ._streams import Headers, build_stream, without_extensions

CONNECTION_WINDOW: Final = 256 * 65535
"""Bytes that the streams of one connection may have unread in all: more than each of them may have, taken together."""

_EMPTY: Final = (
    h2.events.PingReceived,
    h2.events.PingAckReceived,
    h2.events.PriorityUpdated,
    h2.events.RemoteSettingsChanged,
    h2.events.SettingsAcknowledged,
    h2.events.StreamReset,
    h2.events.UnknownFrameReceived,
    h2.events.WindowUpdated,
)


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
        return data  # noqa: ASYNC910  hypercorn's events wait for nothing when they are set


@final
class Http2(H2Protocol):
    """HTTP/2 on one connection."""

    @override
    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # handed on as they are
        # h2 would go by this limit only once the client has acknowledged it.
        self.connection.decoder.max_header_list_size = self.config.h2_max_header_list_size
        self._allowance = Allowance()
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

    async def acknowledge(self, stream_id: int, size: int) -> None:  # noqa: ASYNC910  a frame is only put into a buffer
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
        if isinstance(event, Body | Data):
            self._allowance.earn(len(event.data))
        elif isinstance(event, EndBody | EndData | Trailers):
            self._ended.add(event.stream_id)
        elif isinstance(event, StreamClosed) and event.stream_id in self.streams:
            if event.stream_id not in self._ended:
                await self.reset(event.stream_id)
            self._ended.discard(event.stream_id)
        await super().stream_send(event)

    @override
    async def _handle_events(self, events: Sequence[h2.events.Event]) -> None:
        if not self._allowance.spend(sum(map(_brings_nothing, events))):
            await self._refuse_flood()
            return
        try:
            for event in events:
                # What is wrong with one stream, or came too late for it, must not cost the others.
                with suppress(h2.exceptions.StreamClosedError, h2.exceptions.NoSuchStreamError):
                    await self._handle_event(event)
        except priority.priority.TooManyStreamsError:  # a tree of priorities for streams that never come
            await self._refuse_flood()
        await self._flush()

    async def _handle_event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            await self._take_data(event)
        elif not isinstance(event, h2.events.RequestReceived) or _is_sound(event):
            await super()._handle_events([event])
        else:
            self.connection.reset_stream(event.stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
            await self._flush()

    async def _refuse_flood(self) -> None:
        """End the connection of a client that sends too much of what brings nothing."""
        self.connection.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        await self._flush()
        await self.send(Closed())

    async def _take_data(self, event: h2.events.DataReceived) -> None:  # noqa: ASYNC910  flow control is the bound
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
        stream = build_stream(self, is_websocket=is_websocket, stream_id=stream_id)
        self.streams[stream_id] = stream
        self.stream_buffers[stream_id] = Buffer(self.context.event_class)
        with suppress(priority.priority.DuplicateStreamError):  # its priority came before its headers
            self.priority.insert_stream(stream_id)
            self.priority.block(stream_id)
        plain = filter_pseudo_headers(cast("Headers", list(headers)))
        await stream.handle(
            Request(
                stream_id=stream_id,
                headers=without_extensions(plain) if is_websocket else plain,
                http_version="2",
                method=pseudo[b":method"].decode("ascii").upper(),
                raw_path=pseudo[b":path"],
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1


def _brings_nothing(event: h2.events.Event) -> bool:
    """Whether a frame is no part of a request; a reset is the end of one, but costs as much again."""
    if isinstance(event, h2.events.DataReceived):
        return not event.data and event.stream_ended is None
    return isinstance(event, _EMPTY)


def _is_sound(event: h2.events.RequestReceived) -> bool:
    """Whether a request has what hypercorn relies on; a CONNECT must be that of a websocket."""
    headers = dict(cast("Sequence[HeaderTuple]", event.headers or ()))
    path = headers.get(b":path", b"")
    is_proxying = headers.get(b":method") == b"CONNECT" and headers.get(b":protocol") != b"websocket"
    return path.startswith(b"/") and path.isascii() and not is_proxying
