"""What hypercorn puts between a protocol and one request, and the configuration that both read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, final

from hypercorn.config import Config
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import FrameTooLargeError, WSStream
from typing_extensions import override
from wsproto.connection import ConnectionState as WebSocketState
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

Headers = list[tuple[bytes, bytes]]
_NOT_PASSED_ON: Final = b"sec-websocket-extensions"
"""Compression is not offered: a few bytes of it may become gigabytes before any limit is looked at."""


class Settings(Config):
    """hypercorn's configuration and what this package adds to it."""

    h2c: bool = False


@final
class WebSocket(WSStream):
    """A websocket that tells each side why the other closed it."""

    app_put: Callable[[Any], Awaitable[None]] | None
    buffer: Any  # hypercorn leaves parts of it untyped

    @override
    async def _handle_events(self) -> None:  # noqa: ASYNC910  as hypercorn's own
        for event in self.connection.events():
            if isinstance(event, BytesMessage | TextMessage):
                await self._take(event)
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                await self._take_close(event)

    async def _take(self, message: BytesMessage | TextMessage) -> None:  # noqa: ASYNC910  waits for room only
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


def build_stream(protocol: H11Protocol | H2Protocol, *, is_websocket: bool, stream_id: int) -> HTTPStream | WSStream:
    """Return what stands between a protocol and one request."""
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


def without_extensions(headers: Headers) -> Headers:
    """Return the headers of a websocket without those that offer extensions."""
    return [(name, value) for name, value in headers if name != _NOT_PASSED_ON]
