"""What a client is sent for one request: by its application, or in its place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast, final

import attrs
import trio

from ._application import ASGIMessage

if TYPE_CHECKING:
    from ._connection import Connection

RETRY_AFTER: Final = b"1"
"""Seconds, in an answer 503."""
GOING_AWAY: Final = 1001
"""The code with which a websocket is closed because the service stops."""


class ClientGoneError(ConnectionError):
    """The client will not get what is sent; see the ASGI specification, 2.4, "Disconnected client"."""


@final
@attrs.define(eq=False, repr=False)
class Answer:
    """The answer to one request, or what goes out of a websocket."""

    _connection: Connection
    _pass_on: Callable[[Any], Awaitable[None]]
    """hypercorn's stream; None says that the application is done."""
    stream_id: int
    is_h2: bool
    is_websocket: bool
    gone: bool = attrs.field(default=False, init=False)
    """Nothing may be sent any more: the client is gone, or it got another answer."""
    done: bool = attrs.field(default=False, init=False)
    """The answer is complete."""
    started: bool = attrs.field(default=False, init=False)
    _start: ASGIMessage | None = attrs.field(default=None, init=False)
    """Held back until there is a body: ASGI asks for it, and both fit in one packet."""
    _trailers: bool = attrs.field(default=False, init=False)

    async def send(self, message: ASGIMessage) -> None:
        """Send what an application says.

        Raises:
            ClientGoneError: if the client will not get it.

        Cancellation: Is a checkpoint. If cancelled, the message is sent completely, or the connection breaks.
        """
        await trio.lowlevel.checkpoint()
        if self.gone or self._connection.broken:
            raise ClientGoneError("the client is gone")
        if self.done:
            return
        kind = message["type"]
        if kind == "http.response.start" and self._start is None and not self.started:
            self._start = message
            return
        if self._start is not None and kind != "http.response.early_hint":
            start, self._start = self._start, None
            await self._write(start)
            self.started = True
        await self._write(message)

    async def complete(self, status: int, *, is_last: bool) -> None:
        """End what the application left open; the client gets an answer, or notices that it is cut short.

        Args:
            status: What to answer if there is no answer yet; 0 for nothing.
            is_last: Whether the connection closes after it.
        """
        if not self.gone:
            if not self.started and status:
                await self._give(status, is_last=is_last)
            elif self.started and not self.done and not self.is_websocket:
                await self.cut()
        try:
            await self._pass_on(None)
        except Exception as error:  # noqa: BLE001  the state that an application left the stream in may be any
            self._connection.server.context.log.debug("a stream did not end well", error=str(error))
            await self.cut()

    async def replace(self, status: int, *, is_last: bool) -> None:
        """Answer in place of the application, whose answer is not wanted any more."""
        await trio.lowlevel.checkpoint()
        if self.gone:
            return
        self.gone = True
        if self.started:
            await self.cut()
        else:
            await self._give(status, is_last=is_last)

    async def go_away(self) -> bool:
        """Close a websocket because the service stops; returns whether there was something to close."""
        await trio.lowlevel.checkpoint()
        if not self.started or self.done:
            return False
        self.done = True
        await self._pass_on({"type": "websocket.close", "code": GOING_AWAY, "reason": "the service stops"})
        return True

    async def cut(self) -> None:
        """Make the client notice that its answer is not complete."""
        await self._connection.reset(self.stream_id)

    async def _give(self, status: int, *, is_last: bool) -> None:
        """Send an answer of the dispatcher's own."""
        self.started = self.done = True
        prefix = "websocket.http" if self.is_websocket else "http"
        text = f"{status} {HTTPStatus(status).phrase}\n".encode()
        headers = _headers(status, len(text), is_last=is_last and not self.is_h2)
        try:
            await self._write({"type": f"{prefix}.response.start", "status": int(status), "headers": headers})
            await self._write({"type": f"{prefix}.response.body", "body": text})
        except Exception:  # noqa: BLE001  headers of an application that h11 refused leave no way to answer
            await self.cut()

    async def _write(self, message: ASGIMessage) -> None:
        self._note(message)
        if self.is_h2:
            await self._write_in_time(message)
        else:
            await self._pass_on(message)

    async def _write_in_time(self, message: ASGIMessage) -> None:
        # Flow control may hold a message back for as long as the client likes; a socket has a deadline of its own.
        with trio.move_on_after(self._connection.server.config.write_timeout) as scope:
            await self._pass_on(message)
        if scope.cancelled_caught:
            self.gone = True
            await self.cut()
            raise ClientGoneError("the client does not read")

    def _note(self, message: ASGIMessage) -> None:
        """Note what a message means for the state of the answer."""
        kind, more = message["type"], message.get("more_body", False)
        if kind == "http.response.body":
            self.done = not more and not self._trailers
        elif kind == "http.response.start":
            self._trailers = bool(message.get("trailers", False))
        elif kind == "http.response.trailers":
            self.done = not message.get("more_trailers", False)
        elif kind in {"websocket.accept", "websocket.http.response.start"}:
            self.started = True
        elif kind == "websocket.close" or (kind == "websocket.http.response.body" and not more):
            self.done = self.started = True


def only_gone(error: BaseException) -> bool:
    """Return whether an application only failed because its client was gone."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(only_gone, cast("BaseExceptionGroup[BaseException]", error).exceptions))
    return isinstance(error, ClientGoneError)


def _headers(status: int, length: int, *, is_last: bool) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % length)]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", RETRY_AFTER))
    if is_last:
        headers.append((b"connection", b"close"))
    return headers
