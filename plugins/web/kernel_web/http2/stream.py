"""One request over HTTP/2: its body, its answer, and ASGI's `receive` and `send`."""

from __future__ import annotations

import enum
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, Any, Final, final

import trio
from h2.errors import ErrorCodes
from trio.lowlevel import checkpoint, checkpoint_if_cancelled
from typing_extensions import override

from .._application import ASGIMessage
from ..asgi.call import Call
from ..asgi.own import TEXTS, fields_of
from ..asgi.routes import Route
from ..wire.channel import ClientGoneError
from .lane import Lane
from .protocol import Fields, sendable

if TYPE_CHECKING:
    from ..asgi.shared import Shared

_NO_BODY: Final = frozenset({204, 304})


class WrongAnswerError(RuntimeError):
    """An application answers what cannot be said in HTTP."""


@final
class _Stage(enum.Enum):
    NOTHING = "nothing"
    HELD = "held"
    STARTED = "started"
    TRAILERS = "trailers"
    DONE = "done"


@final
class Stream(Call):
    """A request and its answer."""

    __slots__ = (
        "_expects",
        "_is_head",
        "_left",
        "_patience",
        "_scope",
        "_stage",
        "_start",
        "_task",
        "_told",
        "lane",
        "read_until",
        "sent",
        "status",
    )

    def __init__(self, shared: Shared, scope: dict[str, Any], route: Route, lane: Lane) -> None:
        super().__init__(shared, scope, route)
        offered: dict[str, Any] = {"http.response.trailers": {}, "http.response.early_hint": {}}
        scope["extensions"] = {**scope.get("extensions", {}), **offered}
        self.lane = lane
        self._is_head = scope["method"] == "HEAD"
        self._expects = any(name == b"expect" and value.lower() == b"100-continue" for name, value in scope["headers"])
        self._stage = _Stage.NOTHING
        self._start: ASGIMessage = {}
        self._left: int | None = None
        """Bytes of body that are announced and have not come; None if nothing is announced."""
        self._patience = shared.config.body_timeout
        self.read_until = inf
        """When the client must have sent what is waited for."""
        self.status = 0
        """Of the answer; 0 if there is none."""
        self.sent = 0
        """Bytes of body."""
        self._told = False
        self._scope = trio.CancelScope()
        self._task: trio.lowlevel.Task | None = None

    @property
    @override
    def task(self) -> trio.lowlevel.Task:
        return self._task or trio.lowlevel.current_task()

    @property
    @override
    def is_complete(self) -> bool:
        return self._stage is _Stage.DONE

    @override
    def cancel(self) -> None:
        self._scope.cancel()

    async def run(self) -> None:
        """Serve the request; what is wrong costs nobody but its client."""
        self._task = trio.lowlevel.current_task()
        status = 0
        with self._scope:
            await self._await_body()
            status = 0 if self.gone else await self.serve()
        if self._scope.cancelled_caught:
            status = self.status_of_stop
        if status:
            self.refuse(status)
        self._drop_rest()

    def _drop_rest(self) -> None:
        """Let the client send what nobody will read, and end the stream if it has not ended."""
        self.lane.take()
        self.gone = True

    # --- from the client ----------------------------------------------------------------------------------------

    async def _await_body(self) -> None:
        """Wait until as much of the body has come as may be held: a slot is for work, and not for waiting."""
        await checkpoint_if_cancelled()
        enough = self.shared.config.body_buffer_bytes
        while not (self.lane.ended or self.gone or self._expects) and self.lane.queued < enough:
            await self._wait()

    async def _wait(self) -> None:
        """Wait for the next piece of the body. Time that nobody waits in is not the client's."""
        clock = self.shared.clock
        began = clock.now
        self.read_until = began + min(self._patience, self.shared.config.body_pause_timeout)
        try:
            await self.lane.wait()
        finally:
            self.read_until = inf
            self._patience -= clock.now - began

    def take(self, data: bytes) -> None:
        """Take a piece of body."""
        if self.lane.arrived + len(data) > self.route.max_body_bytes:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        self.lane.put(data)
        if self.gone:
            self.lane.take()

    def look(self, now: float, write_until: float) -> None:
        """Keep the deadlines, but for the lane's: called every tick.

        Args:
            now: The time.
            write_until: When the client must have taken the next piece of what all its streams say.
        """
        if self.read_until <= now:
            self.refuse(HTTPStatus.REQUEST_TIMEOUT)
            self.lane.wake()
        if self.until and self.until <= now:
            self.stop(HTTPStatus.GATEWAY_TIMEOUT)
        if self.awaits_client(min(self.read_until, self.lane.write_until, write_until), now):
            self.lane.reset(ErrorCodes.CANCEL)
            self.gone = True

    def leave(self) -> None:
        """Take note that the client has reset the stream, or gone."""
        self.gone = True
        self.lane.lose()
        if self.waiting is not None:
            self.waiting.cancel()

    @override
    async def receive(self) -> ASGIMessage:
        lane = self.lane
        while not (self._told or self.gone):
            if lane.queued or lane.ended:
                self._told = lane.ended
                return {"type": "http.request", "body": lane.take(), "more_body": not lane.ended}  # noqa: ASYNC910  it is here
            if self._expects and self._stage in {_Stage.NOTHING, _Stage.HELD}:
                self._expects = False
                lane.put_fields([(b":status", b"100")])
                await lane.send(b"")
            await self._wait()
        while not (self.gone or self.is_complete or lane.lost):
            await lane.wait()
        if self.told_gone:
            await checkpoint()
        self.told_gone = True
        return {"type": "http.disconnect"}  # noqa: ASYNC910  suspends only to wait

    # --- to the client ------------------------------------------------------------------------------------------

    @override
    async def send(self, message: ASGIMessage) -> None:  # noqa: ASYNC910  suspends only to wait
        if self.gone or self.lane.lost:
            raise ClientGoneError("the client is gone")
        kind = message["type"]
        if self._stage is _Stage.DONE:
            await checkpoint()
        elif kind == "http.response.start" and self._stage is _Stage.NOTHING:
            self._start, self._stage = message, _Stage.HELD
        elif kind == "http.response.body" and self._stage in {_Stage.HELD, _Stage.STARTED}:
            await checkpoint_if_cancelled()
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))
        elif kind == "http.response.trailers" and self._stage is _Stage.TRAILERS:
            await self._send_trailers(message)
        elif kind == "http.response.early_hint" and self._stage in {_Stage.NOTHING, _Stage.HELD}:
            await self._send_hints(message)
        else:
            raise RuntimeError(f"unexpected {kind}")

    async def _send_body(self, data: bytes, *, more: bool) -> None:
        trailers = bool(self._start.get("trailers", False))
        is_last = not (more or trailers)
        if self._stage is _Stage.HELD:
            fields = self._fields(len(data) if not more else None)
            data = b"" if self._may_have_no_body() else data
            self.lane.put_fields(fields, is_last=is_last and not data)
            self._stage = _Stage.STARTED
            self.status = int(self._start["status"])
            self._count(data, is_last=is_last)
            if is_last and not data:
                await self.lane.send(b"")
                self._end()
                return
        else:
            data = b"" if self._may_have_no_body() else data
            self._count(data, is_last=is_last)
        await self.lane.send(data, is_last=is_last)
        self.sent += len(data)
        if is_last:
            self._end()
        elif not more:
            self._stage = _Stage.TRAILERS

    def _end(self) -> None:
        self._stage = _Stage.DONE
        self.lane.wake()  # another task of the application may wait for the client

    def _may_have_no_body(self) -> bool:
        return self._is_head or self._start["status"] in _NO_BODY

    def _count(self, data: bytes, *, is_last: bool) -> None:
        if self._left is None or self._may_have_no_body():
            return
        self._left -= len(data)
        if self._left < 0 or (self._left and is_last):
            raise WrongAnswerError("the body is not as long as its Content-Length")

    def _fields(self, length: int | None) -> Fields:
        status = self._start["status"]
        if not 200 <= status <= 999:
            raise WrongAnswerError(f"an answer cannot have the status {status}")
        fields = sendable(self._start.get("headers", ()))
        for name, value in fields:
            if name == b"content-length":
                self._left = int(value)
        is_told = status not in _NO_BODY and (length or not self._is_head)
        if self._left is None and length is not None and is_told:
            fields.append((b"content-length", b"%d" % length))
        return [(b":status", b"%d" % status), *fields, *self.shared.clock.fields]

    async def _send_trailers(self, message: ASGIMessage) -> None:
        more = message.get("more_trailers", False)
        self._start.setdefault("collected", []).extend(sendable(message.get("headers", ())))
        if more:
            await checkpoint()
            return
        self.lane.put_fields(self._start["collected"], is_last=True)
        await self.lane.send(b"")
        self._end()

    async def _send_hints(self, message: ASGIMessage) -> None:
        fields = sendable((b"link", link) for link in message.get("links", ()))
        self.lane.put_fields([(b":status", b"103"), *fields])
        await self.lane.send(b"")

    def refuse(self, status: int) -> None:
        """Answer in place of the application, at once and without waiting; cut what has begun. May be called again."""
        if self.gone or self.is_complete:
            return
        self.gone = True
        if self._stage in {_Stage.STARTED, _Stage.TRAILERS}:
            self.lane.reset(ErrorCodes.INTERNAL_ERROR)
            return
        self._stage, self.status = _Stage.DONE, status
        self.sent = give(self.lane, status, self.shared.clock.fields, is_head=self._is_head)
        self.lane.wake()


def give(lane: Lane, status: int, common: Fields, *, is_head: bool = False) -> int:
    """Send an answer of the dispatcher's own, as far as the client takes it; return how many bytes of body that are."""
    text = b"" if is_head else TEXTS[status]
    try:
        lane.put_fields([(b":status", b"%d" % status), *fields_of(status), *common], is_last=not text)
    except ClientGoneError:
        return 0
    if text and not lane.put_data(text, is_last=True):
        lane.reset(ErrorCodes.INTERNAL_ERROR)
        text = b""
    lane.flush()
    return len(text)
