"""One request over HTTP/1.1: its body, its answer, and ASGI's `receive` and `send`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, final

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled
from typing_extensions import override

from .._application import ASGIMessage
from ..asgi.call import Call
from ..asgi.own import size_of
from ..asgi.routes import Route
from ..wire.channel import Channel, ClientGoneError
from .framing import CONTINUE, DONE, HELD, NOTHING, STARTED, Framing, own_answer
from .head import Head, RefusedError
from .parser import Parser

if TYPE_CHECKING:
    from ..asgi.shared import Shared

AHEAD: Final = 64 * 1024
"""Bytes that a client may send ahead of what is asked for."""


class Carrying(Protocol):
    """The connection that a request came over, as the request sees it."""

    channel: Channel
    scope: trio.CancelScope
    task: trio.lowlevel.Task

    async def read_body(self, exchange: Exchange) -> None:
        """Wait for the next piece of a body."""

    async def listen(self) -> None:
        """Wait until the client sends something or leaves."""


@final
class Exchange(Call):
    """A request and its answer. One that is over cannot write into the next."""

    __slots__ = (
        "_channel",
        "_connection",
        "_parser",
        "_pieces",
        "_told",
        "framing",
        "head",
        "missing",
        "patience",
        "received",
    )

    def __init__(
        self, shared: Shared, scope: dict[str, Any], route: Route, head: Head, connection: Carrying, parser: Parser
    ) -> None:
        super().__init__(shared, scope, route)
        self.head = head
        self.framing = Framing(head.method, head.version)
        self._connection = connection
        self._channel: Channel = connection.channel
        self._parser = parser
        self.missing = head.length != 0
        """Some of the body has not come."""
        self.received = 0
        """Bytes of body that came so far."""
        self.patience = shared.config.body_timeout
        """Seconds that may yet be spent waiting for it."""
        self._pieces: list[bytes] = []
        self._told = False
        """The application has received the end of the body."""

    @property
    @override
    def task(self) -> trio.lowlevel.Task:
        return self._connection.task

    @override
    def cancel(self) -> None:
        self._connection.scope.cancel()

    @property
    @override
    def is_complete(self) -> bool:
        return self.framing.stage is DONE

    # --- from the client ----------------------------------------------------------------------------------------

    def pull(self) -> int:
        """Take what has come of the body; return how many bytes of it wait. May refuse the request."""
        try:
            got = self._parser.body() if self.missing and not self.gone else None
        except RefusedError as error:
            self.refuse(error.status)
            return 0
        if got is not None:
            data, self.missing = got
            self.received += len(data)
            if self.received > self.route.max_body_bytes:
                self.refuse(413)
            elif data:
                self._pieces.append(data)
        return sum(map(len, self._pieces))

    def skip(self) -> None:
        """Drop what has come of a body that nobody wanted."""
        while self.missing and not self.gone and self.pull():
            self._pieces.clear()

    @override
    async def receive(self) -> ASGIMessage:
        while not (self._told or self.gone):
            if self.missing:
                self.pull()
                if self.gone:
                    break
            if self._pieces or not self.missing:
                body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
                self._pieces.clear()
                self._told = not self.missing
                return {"type": "http.request", "body": body, "more_body": self.missing}  # noqa: ASYNC910  it is here
            if self.head.expects and self.framing.stage in {NOTHING, HELD}:
                self.head.expects = False
                await self._channel.write(CONTINUE)
            await self._connection.read_body(self)
        while not (self.gone or self.is_complete or self._channel.eof or self._channel.closed):
            await self._connection.listen()
        # Told at once the first time, so that who only looks whether the client is gone, with no time to wait, learns it.
        if self.told_gone:
            await checkpoint()
        self.told_gone = True
        return {"type": "http.disconnect"}  # noqa: ASYNC910  suspends only to wait

    # --- to the client ------------------------------------------------------------------------------------------

    @override
    async def send(self, message: ASGIMessage) -> None:  # noqa: ASYNC910  suspends only to wait
        if self.gone or self._channel.closed:
            raise ClientGoneError("the client is gone")
        framing, kind = self.framing, message["type"]
        if framing.stage is DONE:
            await checkpoint()
        elif kind == "http.response.body" and framing.stage is not NOTHING:
            await checkpoint_if_cancelled()
            await self._channel.write(self._framed(message.get("body", b""), more=message.get("more_body", False)))
            if framing.stage is DONE and self._channel.reading:
                self._channel.wake()  # another task of the application, which need not wait any more
        elif kind == "http.response.start" and framing.stage is NOTHING:
            framing.start(message)  # type: ignore[arg-type]  # a dict, as ASGI has it
        else:
            raise RuntimeError(f"unexpected {kind}")

    def _framed(self, data: bytes, *, more: bool) -> bytes:
        framing, shared = self.framing, self.shared
        if framing.stage is HELD:
            framing.last = framing.last or self.missing or shared.stopping or shared.leaving
        return framing.body(data, more=more, common=shared.clock.common)

    def refuse(self, status: int) -> None:
        """Answer in place of the application, at once and without waiting; cut what has begun. May be called again."""
        if self.gone or self.is_complete:
            return
        self.gone = True
        framing = self.framing
        if framing.stage is STARTED:
            framing.last = True
            self._channel.abort(reset=True)
            return
        framing.last = framing.last or self.missing or self.shared.stopping or self.shared.leaving
        framing.status = status
        is_head = self.head.method == "HEAD"
        framing.sent = size_of(status, is_head=is_head)
        self._channel.write_nowait(own_answer(status, self.shared.clock.common, is_last=framing.last, is_head=is_head))
        self._channel.wake()
