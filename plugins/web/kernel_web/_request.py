"""The life of one request or websocket: a slot, its application, and an end for its client.

hypercorn's stream calls `put` with what the client sends and gets what the answer passes on; everything that an
application may do wrong ends here, and costs nobody but its own client.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast, final

import attrs
import trio

from kernel.errors import UnavailableError

from ._answer import GOING_AWAY, Answer, only_gone
from ._application import ASGIMessage
from ._inbox import Inbox
from ._lifespan import Hosted
from ._routes import Route

if TYPE_CHECKING:
    from ._connection import Connection

_ANSWERED: Final = 0
_SPEC_VERSION: Final = "2.4"
"""In which `send` raises an `OSError` once the client is gone."""


@final
@attrs.define(eq=False, repr=False)
class Request:
    """A request or websocket; `spawn_app` of `Requests` makes it."""

    connection: Connection
    scope: dict[str, Any]
    answer: Answer
    inbox: Inbox
    body_until: float
    """When the body must have arrived; infinite once it has."""
    route: Route | None = None
    _running: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """Holds the wait for a slot and the application."""

    @property
    def is_websocket(self) -> bool:
        """Whether it is one."""
        return self.answer.is_websocket

    # --- from the client ---------------------------------------------------------------------------------------

    # Waits for room only: the reader that calls it has its own checkpoints.
    async def put(self, message: Any) -> None:  # noqa: ANN401, ASYNC910  hypercorn's typed dicts are no mappings
        """Take what the client sent; waits while too much is queued."""
        kind = message["type"]
        if kind in {"websocket.disconnect", "http.disconnect"}:
            self.disconnect(message)
        elif kind != "http.request" or await self._wants(message):
            self.inbox.put(message)
            if self.inbox.is_full:
                await self.inbox.wait_room()

    async def _wants(self, message: ASGIMessage) -> bool:
        """Count the body; return whether the message is of any use."""
        if not message["more_body"]:
            self._expect_no_more()
            return True  # noqa: ASYNC910  as `put`
        size = len(message["body"])
        self.inbox.arrived += size
        if self.inbox.arrived > self.connection.server.config.max_body_bytes:
            await self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return False
        if not self.inbox.is_open:
            await self.connection.taken(self.answer.stream_id, size)
        return size > 0  # noqa: ASYNC910  as `put`

    def _expect_no_more(self) -> None:
        self.body_until = math.inf
        self.connection.schedule()

    def disconnect(self, message: ASGIMessage) -> None:
        """Take note that the client is gone, or was sent away. May be called again."""
        if self.inbox.disconnected:
            return
        # Over HTTP/1.1 a client may have closed only its sending side; but half a request deserves no answer.
        answer = self.answer
        if not answer.done and (answer.is_h2 or self.is_websocket or self.body_until < math.inf):
            answer.gone = True
        self.body_until = math.inf
        self.inbox.disconnect(message)
        if answer.gone and self._running in self.connection.server.waiting:
            self._running.cancel()

    # --- its application ----------------------------------------------------------------------------------------

    async def receive(self) -> ASGIMessage:
        """Return what the client sent next; `http.disconnect` for ever once it is gone or has its answer."""
        await trio.lowlevel.checkpoint()
        while not self.inbox:
            if self.is_websocket and self.inbox.disconnected:
                return {"type": "websocket.disconnect", "code": 1006}
            if self.inbox.disconnected or (self.answer.done and not self.is_websocket):
                return {"type": "http.disconnect"}
            await self.inbox.wait_news()
        message, size = self.inbox.pop()
        if size:
            await self.connection.taken(self.answer.stream_id, size)
        return message

    async def run(self) -> None:
        """Wait for a slot, run the application and see that the client gets an end."""
        status: int = HTTPStatus.SERVICE_UNAVAILABLE  # what it is if it is cancelled, with or without a slot
        try:
            with self._running:
                status = await self._in_slot()
            if self._running.cancelled_caught and trio.current_time() >= self._running.deadline:
                status = HTTPStatus.GATEWAY_TIMEOUT
        except Exception as error:  # noqa: BLE001  whatever an application raises costs only its own client
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            if not only_gone(error):
                self._log_error("the application failed", error)
        await self.end(status)

    async def _in_slot(self) -> int:
        route = cast("Route", self.route)
        label = f"{self.scope.get('method', 'websocket')} {self.scope['path']}"
        status: int = HTTPStatus.SERVICE_UNAVAILABLE  # what it is if the slot is cut
        waiting = self.connection.server.waiting
        waiting.add(self._running)
        try:
            async with self.connection.server.intake.slot(label, worker=route.worker):
                waiting.discard(self._running)
                status = await self._call(route)
        finally:
            waiting.discard(self._running)
        return status

    async def _call(self, route: Route) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            hosted = cast("Hosted", route.target.hosted())
        except UnavailableError:
            return HTTPStatus.SERVICE_UNAVAILABLE
        if self.answer.gone:
            return _ANSWERED
        self._prepare(route, hosted)
        hosted.begin(self._running)
        try:
            await hosted.app(self.scope, self.receive, self.answer.send)
        finally:
            hosted.end(self._running)
        return self._returned()

    def _prepare(self, route: Route, hosted: Hosted) -> None:
        self.scope["root_path"] = route.root_path
        self.scope["state"] = hosted.state.copy()
        self.scope["asgi"] = {"version": "3.0", "spec_version": _SPEC_VERSION}
        limit = self.connection.server.config.request_timeout
        if limit and not self.is_websocket:
            self._running.deadline = trio.current_time() + limit

    def _returned(self) -> int:
        if self.is_websocket or self.answer.done or self.answer.gone:
            return _ANSWERED
        self._log_error("the application returned without a complete answer")
        return HTTPStatus.INTERNAL_SERVER_ERROR

    # --- its end ------------------------------------------------------------------------------------------------

    async def end(self, status: int) -> None:
        """See that the client gets an answer, or notices that it is cut short."""
        unread = self.inbox.shut()
        if unread:
            await self.connection.taken(self.answer.stream_id, unread)
        await self.answer.complete(status, is_last=self._is_last)
        self.connection.requests.leave(self)

    async def refuse(self, status: int) -> None:
        """Answer in place of the application, whose answer is not wanted any more."""
        await self.answer.replace(status, is_last=self._is_last)
        self.disconnect({"type": "http.disconnect"})

    async def go_away(self) -> None:
        """Close a websocket because the service stops; its application is told."""
        if await self.answer.go_away():
            self.disconnect({"type": "websocket.disconnect", "code": GOING_AWAY, "reason": "the service stops"})

    @property
    def _is_last(self) -> bool:
        """Whether the connection cannot be used after this answer: the client may still be sending."""
        return self.body_until < math.inf or self.connection.lingers

    def _log_error(self, what: str, error: BaseException | None = None) -> None:
        log = self.connection.server.context.log
        worker = f"worker/{self.route.worker}" if self.route else ""
        log.error(what, worker=worker, path=self.scope["path"], exc_info=error)
