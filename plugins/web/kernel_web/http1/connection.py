"""One connection of HTTP/1.1: head, slot, application, answer, and the next one. One task, and no timer of its own.

| phase | deadline | when it is over | the client's end | a stop |
|---|---|---|---|---|
| idle, or no request yet | `keep_alive_timeout`, `header_timeout` | close | close | close |
| half a head | `header_timeout`, from its first byte | close | close | close |
| waiting for the body | `body_pause_timeout`, `body_timeout` in all | 408 | gone | goes on |
| working | `request_timeout`, if there is one | 504 | `http.disconnect` | goes on |
| sending | `write_timeout` for each 64 KiB | reset | | goes on |
| lingering | `LINGER` | close | close | goes on |
"""

from __future__ import annotations

import time
from math import inf
from typing import Any, Final, final

import trio
from typing_extensions import override

from ..asgi.own import size_of, status_without_route
from ..asgi.routes import Route
from ..asgi.scope import request_scope, scope_without_route, split_target
from ..asgi.shared import Shared
from ..asgi.speaker import Speaker
from ..websocket.socket import WebSocket
from ..wire.channel import Channel
from .exchange import AHEAD, Exchange
from .framing import own_answer
from .head import Head, RefusedError
from .parser import Parser, State
from .upgrade import Upgraded, handshake, wants_websocket

LINGER: Final = 1.0
"""Seconds in which a client that is still sending may read its last answer: to close at once would reset the connection,
and destroy it."""


@final
class Http1(Speaker):
    """A client that speaks HTTP/1.1."""

    __slots__ = (
        "_asked",
        "_base",
        "_exchange",
        "_heard",
        "_parser",
        "_shared",
        "_target",
        "_websocket",
        "channel",
        "read_until",
        "scope",
        "task",
    )

    def __init__(self, shared: Shared, channel: Channel, base: dict[str, Any], opening: bytes = b"") -> None:
        """Begin a connection.

        Args:
            shared: What all connections share.
            channel: The client's bytes.
            base: The part of the scope that all its requests have.
            opening: What it has sent already.
        """
        self._shared = shared
        self.channel = channel
        self._base = base
        self._parser = Parser(shared.config.max_header_bytes)
        self._parser.feed(opening)
        self._asked = b""
        self._target = "", b"", b""
        """What it was taken apart into: most clients go on asking for one thing."""
        self._exchange: Exchange | None = None
        self._websocket: WebSocket | None = None
        self._heard = True
        """The next request has begun to arrive; true at the start, so that its deadline does not move."""
        self.read_until = shared.clock.now + shared.config.header_timeout
        """When the client must have sent what is waited for."""
        self.scope = trio.CancelScope()
        """Of all its requests: only a cut or a time-out cancels it, after which the connection ends."""
        self.task = trio.lowlevel.current_task()

    @override
    async def run(self) -> None:
        try:
            with self.scope:
                await self._serve_all()
            if self.scope.cancelled_caught and self._exchange is not None:
                self._exchange.refuse(self._exchange.status_of_stop)
                await self.channel.flush()
        finally:
            self._note()
        await self._end()

    def _note(self) -> None:
        """Take note that a request has ended, however it did."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None and (ended := self._shared.ended).is_watched:
            framing = exchange.framing
            ended.add(
                exchange.scope,
                exchange.route.worker_id,
                exchange.began,
                framing.status,
                exchange.received,
                framing.sent,
            )

    async def _serve_all(self) -> None:  # noqa: ASYNC910  suspends only to wait
        """Serve one request after the other, as long as there may be another."""
        try:
            # Each in two calls: what waits for a client, as most do, is woken through as few coroutines as can be.
            while (head := await self._next_head()) is not None and await self._serve(head):
                pass
        except RefusedError as error:
            self._note_without_route(error, error.status)
            self._refuse(error.status, is_head=error.method == "HEAD")

    async def _serve(self, head: Head) -> bool:
        """Serve a request; return whether there may be another."""
        if head.target != self._asked:
            self._asked, self._target = head.target, split_target(head.target)
        shared, target = self._shared, self._target
        is_websocket = bool(head.upgrade) and wants_websocket(head)
        route = shared.routes.find(target[0], "" if is_websocket else head.method)
        if not (shared.hosts.allows_all or shared.hosts.allows(head.headers)):
            return self._answer_without_route(head, 400)  # noqa: ASYNC910  suspends only to wait
        if route is None:
            return self._answer_without_route(head, status_without_route(head.target))  # noqa: ASYNC910  as above
        scope = request_scope(shared, self._base, route, target, head.headers, head.version)
        if is_websocket:
            return await self._upgrade(head, route, scope)
        exchange = self._exchange = self._begin(head, route, scope)
        if exchange.missing:
            await self._await_body(exchange)
        if not exchange.gone:
            status = await exchange.serve()
            if status:
                exchange.refuse(status)
        return await self._finish(exchange)

    async def _upgrade(self, head: Head, route: Route, scope: dict[str, Any]) -> bool:
        """Serve a websocket; the connection ends with it."""
        status, accept = handshake(head)
        if status:
            self._shared.note(scope, route.worker_id, time.perf_counter(), status, size_of(status))
            self._refuse(status)
            return False  # noqa: ASYNC910  lingering follows
        scope["type"] = "websocket"
        scope["scheme"] = "ws" if scope["scheme"] == "http" else "wss"
        carrier = Upgraded(self.channel, self._shared.clock, accept, self._parser.rest())
        self._websocket = WebSocket(self._shared, scope, route, carrier, head.headers)
        try:
            await self._websocket.run()
        finally:
            socket, self._websocket = self._websocket, None
            self._shared.note(socket.scope, socket.route.worker_id, socket.began, socket.status, socket.sent)
        return False

    async def _next_head(self) -> Head | None:
        """Return the next head, None if there will be none."""
        parser, channel, clock = self._parser, self.channel, self._shared.clock
        while not parser.ahead or (head := parser.head()) is None:
            data = await channel.read() if not self._shared.stopping else channel.read_nowait()
            if data:
                parser.feed(data)
                if not self._heard:
                    self._heard = True
                    self.read_until = clock.now + self._shared.config.header_timeout
            elif data is not None or self._shared.stopping:
                return None  # noqa: ASYNC910  suspends only to wait
        self.read_until = inf
        return head  # noqa: ASYNC910  suspends only to wait

    def _begin(self, head: Head, route: Route, scope: dict[str, Any]) -> Exchange:
        scope["method"] = head.method
        exchange = Exchange(self._shared, scope, route, head, self, self._parser)
        exchange.framing.last = not head.keep_alive
        if head.length > route.max_body_bytes:
            exchange.refuse(413)
        return exchange

    def _answer_without_route(self, head: Head, status: int) -> bool:
        """Say what nobody serves, or all do; return whether there may be another request."""
        is_ending = self._shared.stopping or self._shared.leaving
        goes_on = head.keep_alive and not (head.length or head.upgrade or is_ending)
        common, is_head = self._shared.clock.common, head.method == "HEAD"
        self._note_without_route(head, status)
        self.channel.write_nowait(own_answer(status, common, is_last=not goes_on, is_head=is_head))
        self._expect_next()
        return goes_on

    def _note_without_route(self, asked: Head | RefusedError, status: int) -> None:
        """Take note of what no application was asked for, and was answered with a status."""
        shared, sent = self._shared, size_of(status, is_head=asked.method == "HEAD")
        if shared.ended.is_watched:
            scope = scope_without_route(shared, self._base, asked.method, asked.target, asked.headers, asked.version)
            shared.note(scope, "", time.perf_counter(), status, sent)

    async def _await_body(self, exchange: Exchange) -> None:  # noqa: ASYNC910  suspends only to wait
        """Wait until as much of the body has come as may be held: a slot is for work, and not for waiting."""
        enough = self._shared.config.body_buffer_bytes
        while exchange.pull() < enough and exchange.missing and not (exchange.gone or exchange.head.expects):
            await self.read_body(exchange)

    async def _finish(self, exchange: Exchange) -> bool:
        """Send the rest of an answer; return whether the connection goes on."""
        channel, shared = self.channel, self._shared
        if channel.closed or channel.has_unsent:
            await channel.flush()
        if exchange.missing and not exchange.gone:
            exchange.skip()
        self._note()
        if exchange.framing.last or exchange.missing or channel.eof or shared.stopping or shared.leaving:
            return False  # noqa: ASYNC910  suspends only to wait
        self._expect_next()
        return True  # noqa: ASYNC910  as above

    def _expect_next(self) -> None:
        """Give the next request its deadline: it may have begun to arrive."""
        config = self._shared.config
        self._heard = self._parser.ahead > 0
        self.read_until = self._shared.clock.now + (config.header_timeout if self._heard else config.keep_alive_timeout)

    # --- reading for an exchange --------------------------------------------------------------------------------

    async def read_body(self, exchange: Exchange) -> None:
        """Wait for the next piece of a body. Time that nobody waits in is not the client's."""
        clock = self._shared.clock
        began = clock.now
        self.read_until = began + min(exchange.patience, self._shared.config.body_pause_timeout)
        data = await self.channel.read()
        exchange.patience -= clock.now - began
        if not exchange.gone:
            self.read_until = inf
        if data:
            self._parser.feed(data)
        elif data is not None:
            exchange.gone = True  # half a request deserves no answer
            exchange.framing.last = True

    async def listen(self) -> None:  # noqa: ASYNC910  suspends only to wait
        """Wait until the client sends something or leaves; what it sends waits for its turn."""
        data = self.channel.read_nowait() if self._parser.ahead < AHEAD else None
        if data is None:
            data = await (self.channel.read() if self._parser.ahead < AHEAD else self.channel.wait_news())
        if data:
            self._parser.feed(data)

    # --- deadlines and the end ----------------------------------------------------------------------------------

    @override
    def look(self, now: float) -> None:
        exchange = self._exchange
        if self._websocket is not None:
            self._websocket.look(now)
        elif self.read_until <= now:
            if exchange is None or exchange.gone or not exchange.missing:
                self.channel.abort()
            else:
                exchange.refuse(408)
                self.read_until = now + LINGER
        elif exchange is not None:
            if exchange.until and exchange.until <= now:
                exchange.stop(504)
            if exchange.awaits_client(min(self.read_until, self.channel.write_until), now):
                self.channel.abort(reset=True)
            if self._parser.ahead >= AHEAD and not self.channel.eof and self.channel.has_left():
                self.channel.eof = True
                self.channel.wake()
        elif self.read_until == self.channel.write_until == inf:  # nobody would ever end it: no state may be so
            self._shared.context.log.error("a connection had no deadline, and is closed")
            self.channel.abort()
        else:
            self._parser.forget()
            self._asked = b""

    @property
    @override
    def is_idle(self) -> bool:
        return self._exchange is None and self._websocket is None

    @override
    def stop(self) -> None:
        if self._websocket is not None:
            self._websocket.go_away()
        elif self._exchange is None:
            self.channel.wake()

    def _refuse(self, status: int, *, is_head: bool = False) -> None:
        """Answer what is no request; the connection ends."""
        self.channel.write_nowait(own_answer(status, self._shared.clock.common, is_last=True, is_head=is_head))

    async def _end(self) -> None:
        """Let the client have its last answer, and close."""
        channel, parser = self.channel, self._parser
        await channel.flush()
        channel.shut()
        self.read_until = self._shared.clock.now + LINGER
        if parser.state is State.HEAD and not parser.ahead and not channel.read_nowait():
            return
        while not (channel.closed or channel.eof):
            await channel.read()
