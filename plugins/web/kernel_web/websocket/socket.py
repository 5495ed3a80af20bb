"""One websocket: its application speaks to it, and a carrier takes its bytes over HTTP/1.1 or HTTP/2.

One task reads what the client sends, so that pings are answered and a client that leaves is noticed whatever the
application does; it stops reading while too much waits for the application.
"""

from __future__ import annotations

import enum
from math import inf
from typing import TYPE_CHECKING, Any, Final, final

import trio
from trio.lowlevel import checkpoint
from typing_extensions import override

from .._application import ASGIMessage
from ..asgi.call import Call
from ..wire.channel import ClientGoneError
from ..wire.lot import Lot
from ..wire.turns import Pieces
from .carrier import Carrier
from .frames import TEXT, BrokenFrameError, Close, Event, Frames, Opcode, Ping, Pong, close_frame, frame
from .handshake import Headers, deflate_window, values
from .inbox import QUEUE_BYTES, Inbox

if TYPE_CHECKING:
    from ..asgi.routes import Route
    from ..asgi.shared import Shared

SMALL: Final = 2 * 1024
"""Bytes of frames that are taken at once, whatever they cost."""
CLOSE_TIMEOUT: Final = 1.0
"""Seconds in which a client may answer a close, and so learn why."""
GOING_AWAY: Final = 1001
LOST: Final = 1006
FAILED: Final = 1011
NORMAL: Final = 1000


@final
class _State(enum.Enum):
    ASKED = "asked"
    REFUSING = "refusing"
    REFUSED = "refused"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


_ASKED, _REFUSING, _REFUSED, _OPEN, _CLOSING, _CLOSED = _State
"""By names of their own: in an enumeration, a name takes as long to be found as a function to be called."""


@final
class WebSocket(Call):
    """A websocket and its application."""

    __slots__ = (
        "_asks_stop",
        "_carrier",
        "_early",
        "_frames",
        "_headers",
        "_inbox",
        "_lot",
        "_scope",
        "_state",
        "_task",
        "_window",
        "close_until",
        "ping_at",
        "pong_until",
        "status",
    )

    is_websocket = True

    def __init__(self, shared: Shared, scope: dict[str, Any], route: Route, carrier: Carrier, headers: Headers) -> None:
        scope["subprotocols"] = [value.decode("latin-1") for value in values(headers, b"sec-websocket-protocol")]
        scope["extensions"] = {**scope.get("extensions", {}), "websocket.http.response": {}, "websocket.stop": {}}
        super().__init__(shared, scope, route)
        self._carrier = carrier
        self._headers = headers
        self._state = _ASKED
        self._frames: Frames | None = None
        self._window = 0
        self._inbox = Inbox()
        self._early = b""
        """What a client sent before it was answered."""
        self._asks_stop = False
        """Whether the application wants to be told of a stop, and closes by itself."""
        self.status = 0
        """Of the answer to its handshake; 0 if there is none."""
        self._lot = Lot()
        self._scope = trio.CancelScope()
        self._task = trio.lowlevel.current_task()
        self.ping_at = self.pong_until = self.close_until = inf

    @property
    @override
    def task(self) -> trio.lowlevel.Task:
        return self._task

    @property
    @override
    def is_complete(self) -> bool:
        return self._state not in {_ASKED, _REFUSING}

    @property
    def sent(self) -> int:
        """Bytes of body of the answer to its handshake, if that was refused."""
        return self._carrier.sent

    @override
    def cancel(self) -> None:
        self._scope.cancel()

    # --- its life -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until both sides are done."""
        shared = self.shared
        if shared.intake.is_paused:
            shared.tell_full()
        if shared.intake.is_paused or shared.websockets >= shared.config.max_websockets:
            self.status = 503
            self._carrier.refuse(503)
            await checkpoint()
            return
        shared.websockets += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                status = 0
                with self._scope:
                    status = await self.serve()
                if self._scope.cancelled_caught:
                    status = self.status_of_stop
                await self._end(status)
                nursery.cancel_scope.cancel()
        finally:
            shared.websockets -= 1

    async def _end(self, status: int) -> None:
        """See that the client learns how it ended."""
        await checkpoint()
        if self._state is _ASKED and status:
            self._state, self.status = _REFUSED, status
            self._carrier.refuse(status)
        elif self._state is _OPEN:
            self._close(_code(status))
        self.gone = True
        try:
            await self._carrier.flush()
        except ClientGoneError:
            return
        self.close_until = self.shared.clock.now + CLOSE_TIMEOUT
        while self._state is _CLOSING and self.close_until < inf:
            await self._lot.park()

    def look(self, now: float) -> None:
        """Keep the deadlines: called every tick."""
        if self.close_until <= now:
            self.close_until = inf
            self._lot.unpark_all()
        elif self._state is _OPEN and self.pong_until <= now and self._carrier.is_reading:
            self._close(FAILED, "no answer to a ping")
            self._lose(LOST)
        elif self._state is _OPEN and self.ping_at <= now:
            config = self.shared.config
            self._carrier.write_nowait(frame(Opcode.PING, b""))
            self.ping_at = now + config.websocket_ping
            self.pong_until = min(self.pong_until, now + config.websocket_pong_timeout)

    def go_away(self) -> None:
        """Close because the service stops; the application is told. One that has asked for that closes by itself."""
        if self._state is _OPEN and self._asks_stop:
            self._inbox.put_stop()
            self._lot.unpark_all()
        elif self._state is _OPEN:
            self._close(GOING_AWAY, "the service stops")
            self._lose(GOING_AWAY, "the service stops")

    def _close(self, code: int, reason: str = "") -> None:
        self._state = _CLOSING
        self._carrier.write_nowait(close_frame(code, reason))

    def _lose(self, code: int, reason: str = "") -> None:
        """Take note that nothing more comes from the client, or is wanted from it."""
        self.gone = True
        self._inbox.end(code, reason)
        self._lot.unpark_all()

    # --- from the client ----------------------------------------------------------------------------------------

    async def _read(self) -> None:  # noqa: ASYNC910  suspends only to wait
        while self._state is not _CLOSED:
            if self._is_full:
                await self._lot.park()
                continue
            data = await self._carrier.read()
            try:
                if data and len(data) > SMALL:
                    await self._take_in(data)
                elif data:
                    self._feed(data)
                if self._carrier.is_behind:
                    await self._carrier.flush()
            except ClientGoneError:
                data = b""
            if data is not None and not data:
                self._state = _CLOSED if self.is_complete else self._state
                self._lose(LOST)
                return

    async def _take_in(self, data: bytes) -> None:  # noqa: ASYNC910  suspends only to wait
        """Take what the client sent over several turns: thousands of small frames may have come at once."""
        pieces = Pieces(data)
        while pieces:
            await self.shared.turns.take(pieces, self._feed)
            await self._carrier.flush()

    @property
    def _is_full(self) -> bool:
        return self._state is not _CLOSING and (self._inbox.is_full or len(self._early) >= QUEUE_BYTES)

    def _feed(self, data: bytes) -> None:
        """Take what the client sends; what is to be said to that waits for a `flush`."""
        frames = self._frames
        if frames is None:
            self._early += data
            return
        try:
            for event in frames.feed(data):
                self._take(event)
        except BrokenFrameError as error:
            if self._state is _OPEN:
                self._close(error.code, error.reason)
                self._lose(error.code, error.reason)
            self._state = _CLOSED  # RFC 6455, 7.1.7: nothing that it says any more is waited for
            frames.ignore()
            self._lot.unpark_all()

    def _take(self, event: Event) -> None:
        if isinstance(event, Close):
            self._take_close(event)
        elif self._state is not _OPEN or isinstance(event, Pong):
            self.pong_until = inf
        elif isinstance(event, Ping):
            self._carrier.write_nowait(frame(Opcode.PONG, event.payload))
        else:
            self._inbox.put(event)
            self._lot.unpark_all()

    def _take_close(self, event: Close) -> None:
        if self._state is _OPEN:
            self._carrier.write_nowait(close_frame(event.code))
        self._state = _CLOSED
        self._lose(event.code, event.reason)

    @override
    async def receive(self) -> ASGIMessage:
        inbox = self._inbox
        while not inbox.has_news:
            await self._lot.park()
        was_full, message = inbox.is_full, inbox.take()
        if was_full:
            self._lot.unpark_all()
        if message["type"] == "websocket.disconnect":
            if self.told_gone:
                await checkpoint()
            self.told_gone = True
        return message  # noqa: ASYNC910  suspends only to wait

    # --- to the client ------------------------------------------------------------------------------------------

    @override
    async def send(self, message: ASGIMessage) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        kind = message["type"]
        if self._state is _OPEN and kind == "websocket.send":
            await self._carrier.write(self._framed(message))
        elif self._state is _OPEN and kind == "websocket.close":
            self._close(message.get("code", NORMAL), message.get("reason") or "")
            self._lose(message.get("code", NORMAL))
            await self._carrier.flush()
        elif self.gone or self._state in {_CLOSING, _CLOSED}:
            raise ClientGoneError("the client is gone")
        elif self._state is _ASKED and kind == "websocket.accept":
            await self._accept(message)
        elif self._state is _ASKED and kind == "websocket.close":
            self._state, self.status = _REFUSED, 403
            self._carrier.refuse(403)
            self._lose(LOST)
        elif self._state in {_ASKED, _REFUSING} and kind.startswith("websocket.http.response."):
            await self._respond(message)
        else:
            raise RuntimeError(f"unexpected {kind}")

    def _framed(self, message: ASGIMessage) -> bytes:
        text = message.get("text")
        if text is None:
            return frame(Opcode.BINARY, message["bytes"], window=self._window)
        return frame(TEXT, text.encode(), window=self._window)

    async def _accept(self, message: ASGIMessage) -> None:
        config, headers = self.shared.config, [(name.lower(), value) for name, value in message.get("headers", ())]
        if message.get("subprotocol") is not None:
            headers.append((b"sec-websocket-protocol", message["subprotocol"].encode()))
        if config.websocket_compression:
            self._window, answer = deflate_window(self._headers)
            if self._window:
                headers.append((b"sec-websocket-extensions", answer))
        await self._carrier.accept(headers)
        self._state, self.status = _OPEN, 101
        self._asks_stop = bool(message.get("stop"))
        self._frames = Frames(config.websocket_max_bytes, inflates=self._window > 0)
        if config.websocket_ping:
            self.ping_at = self.shared.clock.now + config.websocket_ping
        early, self._early = self._early, b""
        if early:
            self._feed(early)
            await self._carrier.flush()
            self._lot.unpark_all()
        if self.shared.stopping:  # it was only asked when all others were told
            self.go_away()

    async def _respond(self, message: ASGIMessage) -> None:
        self._state = _REFUSING
        self.status = message.get("status", self.status)
        await self._carrier.respond({**message, "type": message["type"].removeprefix("websocket.")})
        if message["type"].endswith("body") and not message.get("more_body", False):
            self._state = _REFUSED
            self._lose(LOST)


def _code(status: int) -> int:
    """Return the code to close with in place of an application that ended so."""
    if not status:
        return NORMAL
    return GOING_AWAY if status == 503 else FAILED
