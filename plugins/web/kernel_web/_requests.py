"""The requests of one connection, which are let in here or refused; stands where hypercorn has its task group."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from ._answer import Answer
from ._config import WebConfig
from ._inbox import Inbox
from ._request import Request

if TYPE_CHECKING:
    from hypercorn.config import Config as HypercornConfig
    from hypercorn.typing import AppWrapper

    from ._connection import Connection

REQUESTS_MAX: Final = 200
"""Requests of one connection at a time, cancelled ones that still run included; a client that resets faster than
requests can end is cut off."""
_HTTP2: Final = "2"
_VERSIONS: Final = frozenset({"1.1", _HTTP2, "1.0"})


@final
@attrs.define(eq=False, repr=False)
class Requests:
    """Those that have not ended."""

    _connection: Connection
    _running: dict[Request, None] = attrs.field(factory=dict[Request, None], init=False)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._running)

    @property
    def body_until(self) -> float:
        """When the first of their bodies must have arrived; infinite if none is awaited."""
        return min((request.body_until for request in self._running), default=math.inf)

    async def spawn_app(
        self,
        app: AppWrapper,
        config: HypercornConfig,
        scope: Any,  # noqa: ANN401
        send: Callable[[Any], Awaitable[None]],
    ) -> Callable[[Any], Awaitable[None]]:
        """Start a request, or its refusal; return what takes the rest of what its client sends."""
        request = self._build(scope, send)
        self._running[request] = None
        if len(self._running) > REQUESTS_MAX:
            self._connection.abort()
        else:
            self._connection.begin(*self._job(request))
        return request.put  # noqa: ASYNC910  the reader goes on with the same packet

    def _build(self, scope: dict[str, Any], send: Callable[[Any], Awaitable[None]]) -> Request:
        stream_id = getattr(send, "__self__").stream_id  # noqa: B009  hypercorn passes a method of its stream
        is_websocket, is_h2 = scope["type"] == "websocket", scope["http_version"] == _HTTP2
        timeout = math.inf if is_websocket else self._connection.server.config.body_timeout
        answer = Answer(self._connection, send, stream_id, is_h2, is_websocket)
        return Request(self._connection, scope, answer, Inbox(is_websocket, is_h2), trio.current_time() + timeout)

    def _job(self, request: Request) -> tuple[Callable[..., Awaitable[None]], *tuple[object, ...]]:
        """Return what the task of a request runs."""
        server = self._connection.server
        status = refusal(request.scope, server.config, measures=self._connection.got_much)
        if not status:
            request.route = server.routes.find(request.scope["path"])
            if request.route is not None:
                return (request.run,)
        if status == HTTPStatus.BAD_REQUEST:
            self._connection.lingers = True
        return self._refuse, request, status or HTTPStatus.NOT_FOUND

    async def _refuse(self, request: Request, status: int) -> None:
        await request.refuse(status)
        await request.end(status)

    def spawn(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:  # noqa: ANN401
        """Start a task of a protocol, which ends with the connection."""
        self._connection.spawn(function, *args)

    def leave(self, request: Request) -> None:
        """Take note that a request has ended."""
        del self._running[request]
        self._connection.end_if_over()

    def abandon(self) -> None:
        """Say that no request gets anything more from its client."""
        for request in self._running:
            request.inbox.abandon()

    async def time_out(self) -> None:
        """Refuse requests whose bodies are overdue."""
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        for request in [request for request in self._running if request.body_until <= now]:
            await request.refuse(HTTPStatus.REQUEST_TIMEOUT)

    async def say_goodbye(self) -> None:
        """Close the websockets because the service stops."""
        await trio.lowlevel.checkpoint()
        for request in [request for request in self._running if request.is_websocket]:
            await request.go_away()


def refusal(scope: dict[str, Any], config: WebConfig, *, measures: bool) -> int:
    """Return the status of a request that no application sees, or 0.

    Args:
        scope: Of ASGI.
        config: The limits.
        measures: Whether its headers may be over the limit: not if less than that arrived.
    """
    headers = scope["headers"]
    if measures and sum(len(name) + len(value) for name, value in headers) > config.max_header_bytes:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    if scope["http_version"] not in _VERSIONS:
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    length = _content_length(headers)
    if length < 0:
        return HTTPStatus.BAD_REQUEST
    return HTTPStatus.REQUEST_ENTITY_TOO_LARGE if length > config.max_body_bytes else 0


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return the declared length of a body, 0 if there is none, -1 if it is told in two ways (request smuggling)."""
    length = 0
    chunked = declared = False
    for name, value in headers:
        if name == b"content-length":
            length, declared = int(value), True
        elif name == b"transfer-encoding":
            chunked = True
    return -1 if chunked and declared else length
