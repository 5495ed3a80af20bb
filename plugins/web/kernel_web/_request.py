"""One request or websocket: what its application receives and sends, and how it ends.

hypercorn's stream calls `put` with what the client sends and gets what `send` passes on; everything that an application
may do wrong ends here, and costs nobody but its own client.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast, final

import attrs
import trio

from kernel.errors import UnavailableError

from ._application import ASGIMessage
from ._lifespan import Hosted
from ._routes import Route

if TYPE_CHECKING:
    from ._connection import Connection

QUEUE_BYTES: Final = 64 * 1024
"""What a client may send ahead of its application, in bytes of body (HTTP/1.1) or of whole messages (websocket)."""
QUEUE_MESSAGES: Final = 64
RETRY_AFTER: Final = b"1"
"""Seconds, in an answer 503."""
GOING_AWAY: Final = 1001
_ANSWERED: Final = 0
_SPEC_VERSION: Final = "2.4"
"""In which `send` raises an `OSError` once the client is gone."""


class ClientGoneError(ConnectionError):
    """The client will not get what is sent; see the ASGI specification, 2.4, "Disconnected client"."""


@final
@attrs.define(eq=False)
class Request:
    """A request or websocket; `spawn_app` of its connection makes it."""

    connection: Connection
    scope: dict[str, Any]
    _pass_on: Callable[[Any], Awaitable[None]]
    """hypercorn's stream; None says that the application is done."""
    stream_id: int
    is_h2: bool
    body_until: float
    """When the body must have arrived; infinite once it has."""
    route: Route | None = None
    gone: bool = attrs.field(default=False, init=False)
    """Nothing may be sent any more: the client is gone, or it got another answer."""
    done: bool = attrs.field(default=False, init=False)
    """The answer is complete."""
    _disconnected: bool = attrs.field(default=False, init=False)
    _start: ASGIMessage | None = attrs.field(default=None, init=False)
    """Held back until there is a body: ASGI asks for it, and both fit in one packet."""
    _started: bool = attrs.field(default=False, init=False)
    _trailers: bool = attrs.field(default=False, init=False)
    _queue: deque[ASGIMessage] = attrs.field(factory=deque[ASGIMessage], init=False)
    _queued: int = attrs.field(default=0, init=False)
    _body: int = attrs.field(default=0, init=False)
    _news: trio.Event | None = attrs.field(default=None, init=False)
    _room: trio.Event | None = attrs.field(default=None, init=False)
    _waiting: trio.CancelScope | None = attrs.field(default=None, init=False)
    """Of the wait for a slot."""
    _over: bool = attrs.field(default=False, init=False)
    """The application will not receive any more."""

    @property
    def is_websocket(self) -> bool:
        """Whether it is one."""
        return bool(self.scope["type"] == "websocket")

    # --- from the client ---------------------------------------------------------------------------------------

    async def put(self, message: Any) -> None:  # noqa: ANN401  hypercorn's typed dicts are no mappings
        """Take what the client sent; waits while too much is queued.

        Over HTTP/2 requests never wait: flow control bounds what comes, since only what was received is acknowledged.
        """
        kind = message["type"]
        if kind == "http.request":
            if not await self._take_body(message):
                return
        elif kind in {"websocket.disconnect", "http.disconnect"}:
            self._disconnect(message)
            return
        if self._over or self._disconnected:
            return
        self._queue.append(message)
        if self._news is not None:
            self._news.set()
        if self._is_full():
            await self._wait_room()

    async def _take_body(self, message: ASGIMessage) -> bool:
        """Count the body; return whether the message is of any use."""
        body = message["body"]
        if not message["more_body"]:
            self.body_until = math.inf
            self.connection.schedule()
            return True
        self._body += len(body)
        if self._body > self.connection.server.config.max_body_bytes:
            self.body_until = math.inf
            await self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return False
        if self._over or self._disconnected:
            await self.connection.taken(self, len(body))
            return False
        self._queued += len(body)
        return bool(body)

    def _disconnect(self, message: ASGIMessage) -> None:
        if self._disconnected:
            return
        # Over HTTP/1.1 a client may have closed only its sending side; but half a request deserves no answer.
        if not self.done and (self.is_h2 or self.is_websocket or self.body_until < math.inf):
            self.gone = True
        self.body_until = math.inf
        self._disconnected = True
        if self.gone and self._waiting is not None:
            self._waiting.cancel()
        self._queue.append(message)
        self.wake()

    def _is_full(self) -> bool:
        if self.is_websocket:
            return len(self._queue) >= QUEUE_MESSAGES
        return self._queued >= QUEUE_BYTES and not self.is_h2

    async def _wait_room(self) -> None:
        while self._is_full() and not (self._over or self._disconnected or self.connection.broken):
            self._room = trio.Event()
            await self._room.wait()

    def wake(self) -> None:
        """Let whoever waits look again."""
        for event in (self._news, self._room):
            if event is not None:
                event.set()

    # --- the application's side --------------------------------------------------------------------------------

    async def receive(self) -> ASGIMessage:
        """Return what the client sent next; `http.disconnect` for ever once it is gone or has its answer."""
        await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._disconnected or (self.done and not self.is_websocket):
                return (
                    {"type": "websocket.disconnect", "code": 1006} if self.is_websocket else {"type": "http.disconnect"}
                )
            # Two tasks of an application may wait at the same time, for instance one of them for a disconnect.
            self._news = trio.Event() if self._news is None or self._news.is_set() else self._news
            await self._news.wait()
        message = self._queue.popleft()
        size = len(message.get("body", b""))
        if size:
            self._queued -= size
            await self.connection.taken(self, size)
        if self._room is not None:
            self._room.set()
        return message

    async def send(self, message: ASGIMessage) -> None:
        """Send to the client.

        Raises:
            ClientGoneError: if the client will not get it.

        Cancellation: Is a checkpoint. If cancelled, the message is sent completely, or the connection breaks.
        """
        await trio.lowlevel.checkpoint()
        if self.gone or self.connection.broken:
            raise ClientGoneError("the client is gone")
        if self.done:
            return
        kind = message["type"]
        if kind == "http.response.start" and self._start is None and not self._started:
            self._start = message
            return
        if self._start is not None and kind != "http.response.early_hint":
            start, self._start = self._start, None
            await self._write(start)
            self._started = True
        await self._write(message)

    async def _write(self, message: ASGIMessage) -> None:
        self._note(message)
        if self.is_h2:
            await self._write_in_time(message)
        else:
            await self._pass_on(message)

    async def _write_in_time(self, message: ASGIMessage) -> None:
        # Flow control may hold a message back for as long as the client likes; a socket has a deadline of its own.
        with trio.move_on_after(self.connection.server.config.write_timeout) as scope:
            await self._pass_on(message)
        if scope.cancelled_caught:
            self.gone = True
            await self.connection.reset(self)
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
            self._started = True
        elif kind == "websocket.close" or (kind == "websocket.http.response.body" and not more):
            self.done = self._started = True

    # --- its life -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Wait for a slot, run the application and see that the client gets an end."""
        status: int = HTTPStatus.SERVICE_UNAVAILABLE
        try:
            if await self._wait_turn():
                try:
                    status = await self._in_slot()
                finally:
                    self.connection.server.turns.release()
        except Exception as error:  # noqa: BLE001  whatever an application raises costs only its own client
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            self._report(error)
        await self.end(status)

    async def _wait_turn(self) -> bool:
        """Return whether there is a slot and somebody who still wants it."""
        server = self.connection.server
        try:
            server.turns.acquire_nowait()
        except trio.WouldBlock:
            if server.terminated:
                return False
            with trio.CancelScope() as scope:
                self._waiting = scope
                server.waiting.add(scope)
                try:
                    await server.turns.acquire()
                finally:
                    server.waiting.discard(scope)
            if scope.cancelled_caught:
                return False
        if self.gone:
            server.turns.release()
        return not self.gone

    async def _in_slot(self) -> int:
        route = cast("Route", self.route)
        label = f"{self.scope.get('method', 'websocket')} {self.scope['path']}"
        status: int = HTTPStatus.SERVICE_UNAVAILABLE  # what it is if the slot is cut
        async with self.connection.server.intake.slot(label, worker=route.worker):
            status = await self._call(route)
        return status  # noqa: RET504  a slot that is cut swallows the cancellation, and then it still has its first value

    async def _call(self, route: Route) -> int:
        try:
            hosted = cast("Hosted", route.target.hosted())
        except UnavailableError:
            return HTTPStatus.SERVICE_UNAVAILABLE
        self._complete_scope(route, hosted)
        limit = 0.0 if self.is_websocket else self.connection.server.config.request_timeout
        with trio.CancelScope() as scope:
            if limit:
                scope.deadline = trio.current_time() + limit
            hosted.requests.add(scope)
            try:
                await hosted.app(self.scope, self.receive, self.send)
            finally:
                hosted.requests.discard(scope)
        if scope.cancelled_caught:
            late = limit and trio.current_time() >= scope.deadline
            return HTTPStatus.GATEWAY_TIMEOUT if late else HTTPStatus.SERVICE_UNAVAILABLE
        return self._returned()

    def _complete_scope(self, route: Route, hosted: Hosted) -> None:
        self.scope["root_path"] = route.root_path
        self.scope["state"] = hosted.state.copy()
        self.scope["asgi"] = {"version": "3.0", "spec_version": _SPEC_VERSION}

    def _returned(self) -> int:
        if self.is_websocket or self.done or self.gone:
            return _ANSWERED
        self._log_error("the application returned without a complete answer")
        return HTTPStatus.INTERNAL_SERVER_ERROR

    async def end(self, status: int) -> None:
        """See that the client gets an answer, or notices that it is cut short."""
        self._over = True
        if self._queued:
            await self.connection.taken(self, self._queued)
            self._queued = 0
        self.wake()
        if not self._started and status and not self.gone:
            await self.answer(status)
        elif self._started and not self.done and not self.gone and not self.is_websocket:
            await self.connection.reset(self)
        await self._finish()
        self.connection.leave(self)

    async def _finish(self) -> None:
        try:
            await self._pass_on(None)
        except Exception as error:  # noqa: BLE001  the state that an application left the stream in may be any
            self.connection.server.context.log.debug("a stream did not end well", error=str(error))
            await self.connection.reset(self)

    async def refuse(self, status: int) -> None:
        """Answer in place of the application, whose answer is not wanted any more."""
        if not self._started and not self.gone:
            self.gone = True
            await self.answer(status)
        elif not self.gone:
            self.gone = True
            await self.connection.reset(self)
        self._disconnect({"type": "http.disconnect"})

    async def answer(self, status: int) -> None:
        """Send an answer of the dispatcher's own."""
        self._started = self.done = True
        prefix = "websocket.http" if self.is_websocket else "http"
        text = f"{status} {HTTPStatus(status).phrase}\n".encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append((b"retry-after", RETRY_AFTER))
        if not self.is_h2 and (self.body_until < math.inf or self.connection.lingers):
            headers.append((b"connection", b"close"))
        try:
            await self._write({"type": f"{prefix}.response.start", "status": int(status), "headers": headers})
            await self._write({"type": f"{prefix}.response.body", "body": text})
        except Exception:  # noqa: BLE001  headers of an application that h11 refused leave no way to answer
            await self.connection.reset(self)

    async def go_away(self) -> None:
        """Close a websocket because the service stops; its application is told."""
        if not self._started or self.done:
            return
        self.done = True
        await self._pass_on({"type": "websocket.close", "code": GOING_AWAY, "reason": "the service stops"})
        self._disconnect({"type": "websocket.disconnect", "code": GOING_AWAY, "reason": "the service stops"})

    def _report(self, error: BaseException) -> None:
        if not _only_gone(error):
            self._log_error("the application failed", error)

    def _log_error(self, what: str, error: BaseException | None = None) -> None:
        log = self.connection.server.context.log
        worker = f"worker/{self.route.worker}" if self.route else ""
        log.error(what, worker=worker, path=self.scope["path"], exc_info=error)


def _only_gone(error: BaseException) -> bool:
    """Whether an application only failed because its client was gone."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_only_gone, cast("BaseExceptionGroup[BaseException]", error).exceptions))
    return isinstance(error, ClientGoneError)
