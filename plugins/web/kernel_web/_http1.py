"""hypercorn's HTTP/1.1 with what a server at the edge needs besides."""

from __future__ import annotations

from typing import cast, final

import h11
from hypercorn.protocol.events import Request
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from typing_extensions import override

from ._streams import Headers, Settings, build_stream, without_extensions


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
    async def _check_protocol(self, event: h11.Request) -> None:  # noqa: ASYNC910  as hypercorn's own
        """Change to HTTP/2 only with a client that knows it is spoken; an upgrade could smuggle requests past a proxy."""
        if event.method == b"PRI" and isinstance(self.config, Settings) and self.config.h2c:
            await super()._check_protocol(event)

    @override
    async def _create_stream(self, request: h11.Request) -> None:
        headers = list(request.headers)
        is_websocket = _wants_websocket(request.method, headers)
        if is_websocket:
            self.connection = H11WSConnection(cast("h11.Connection", self.connection))
        self.stream = build_stream(self, is_websocket=is_websocket, stream_id=STREAM_ID)
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=without_extensions(headers) if is_websocket else headers,
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=_origin_form(request.target),
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1


def _wants_websocket(method: bytes, headers: Headers) -> bool:
    if method != b"GET":
        return False
    found = {name: value.lower() for name, value in headers if name in {b"upgrade", b"connection"}}
    tokens = (token.strip() for token in found.get(b"connection", b"").split(b","))
    return found.get(b"upgrade", b"").strip() == b"websocket" and b"upgrade" in tokens


def _origin_form(target: bytes) -> bytes:
    """Return the path of a target that is a whole URL, as a client writes it that takes this for a proxy."""
    scheme, separator, rest = target.partition(b"://")
    if target.startswith(b"/") or not separator or scheme.lower() not in {b"http", b"https"}:
        return target
    return b"/" + rest.partition(b"/")[2]
