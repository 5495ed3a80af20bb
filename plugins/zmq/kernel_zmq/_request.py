"""Calls over ZeroMQ as a worker makes them, and which of them an answer is for."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from typing import Final, TypeVar, final, overload

import attrs
import trio
from typing_extensions import override

from kernel import NO_HEADERS, Envelope, Message, Outgoing, Pace, PendingCall, PendingCalls, payload_converter
from kernel.abc import Caller, Context, Intercept, Protocol, continued, telling
from kernel.errors import CallTimeoutError, UnavailableError, UnknownOutcomeError

from ._config import RequestConfig
from ._socket import Socket
from ._wire import is_greeting, read_reply, write_cancellation, write_request

ReturnT = TypeVar("ReturnT")

_CLOSED: Final = "the ZeroMQ client is closed"
_MAX_UNTOLD: Final = 1000


@final
@attrs.define(eq=False, repr=False)
class ZmqClient(Caller):
    """Calls remote handlers and waits for their answers. Safe to share between tasks."""

    _socket: Socket
    _context: Context
    _config: RequestConfig
    _protocol: Protocol = attrs.field(init=False)
    _limiter: trio.CapacityLimiter = attrs.field(init=False)
    _pending: PendingCalls[bytes] = attrs.field(factory=PendingCalls[bytes], init=False)
    _cancelled: deque[bytes] = attrs.field(factory=lambda: deque[bytes](maxlen=_MAX_UNTOLD), init=False)
    """Calls that were cancelled before the other side has greeted."""
    _is_greeted: bool = attrs.field(default=False, init=False)
    _may_send: trio.Event | None = attrs.field(default=None, init=False)
    """What requests wait for while the only connection is broken: libzmq tells of that before it drops the pipe, and
    what is put into it then is lost. None if there is nothing to wait for."""
    _is_closed: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._protocol = self._context.protocol
        self._limiter = trio.CapacityLimiter(self._config.max_in_flight)

    def __repr__(self) -> str:
        return f"<ZmqClient with {self.in_flight} calls in flight>"

    @property
    def _tells(self) -> bool:
        """Whether calls that are cancelled are told of: with several peers nobody knows which of them has the request."""
        return self._config.tell_cancelled and self._config.is_single

    @property
    def in_flight(self) -> int:
        """Calls that wait for their answer."""
        return len(self._pending)

    @property
    def late_replies(self) -> int:
        """Answers that came when nobody waited for them any more."""
        return self._pending.late_replies

    @overload
    async def call(
        self, subject: str, payload: object, *, headers: Mapping[str, object] = ..., returns: type[ReturnT]
    ) -> ReturnT: ...
    @overload
    async def call(
        self, subject: str, payload: object, *, headers: Mapping[str, object] = ..., returns: object = ...
    ) -> object: ...
    @override
    async def call(
        self, subject: str, payload: object, *, headers: Mapping[str, object] = NO_HEADERS, returns: object = object
    ) -> object:
        """Send a request and return what the answer carries.

        The request carries the caller's deadline, or `timeout` from the manifest if that is sooner. With `attempts`
        above 1 it is sent again when no answer came in time, and may then be handled more than once.

        Raises:
            RemoteError: if the other side answered with an error.
            Exception: of a class that the protocol's configuration lists, if that is the error.
            CallTimeoutError: if no answer came within `timeout`, `attempts` times.
            UnavailableError: if nobody was connected in that time, or the driver is closed.
            UnknownOutcomeError: if the only connection broke while the answer was awaited.
            EncodeError: if the protocol cannot write the payload; `ContractError` if it is not what the driver's
                contract promises. Nothing was sent.
            DecodeError: if the answer means nothing in the protocol; `ConversionError` if it is no `returns`.

        Cancellation: Is a checkpoint. If cancelled, the other side is told, and the request may have been handled; its
            answer is dropped.
        """
        convert = _same if returns is object else payload_converter(returns)
        if self._context.contract is not None:
            promised = self._context.contract.sending(subject, payload)
            convert = promised if returns is object else convert
        with telling(self._context, subject, is_call=True):
            message = Message(subject=subject, payload=payload, headers=continued(self._protocol, headers))
            return convert(await self._call(message))

    async def _call(self, message: Message) -> object:
        intercept, subject = self._context.intercept, message.subject
        request = self._protocol.encode(message) if intercept is None else None
        is_sent = False
        for _ in range(self._config.attempts):
            call = PendingCall()
            with trio.move_on_after(self._config.timeout):
                if request is not None:
                    return self._protocol.decode_reply(await self._ask(request, call))
                assert intercept is not None  # there is one or the other
                return await self._ask_within(intercept, message, call)
            is_sent |= call.is_sent
        if is_sent:
            raise CallTimeoutError(subject, seconds=self._config.timeout * self._config.attempts)
        raise UnavailableError(f'nobody was connected who could get "{subject}"')

    async def _ask_within(self, intercept: Intercept, message: Message, call: PendingCall) -> object:
        """Make one attempt within interceptors, and within its time."""
        outgoing = Outgoing(message.subject, message.payload, dict(message.headers), is_call=True)

        async def ask() -> object:
            request = self._protocol.encode(attrs.evolve(message, headers=outgoing.headers))
            outgoing.answer = await self._ask(request, call)
            return self._protocol.decode_reply(outgoing.answer)

        return await intercept(outgoing, ask)

    async def _ask(self, request: Envelope, call: PendingCall) -> Envelope:
        async with self._limiter:
            key = os.urandom(8)
            self._pending.add(key, call)
            try:
                await self._send(request, key)
                call.is_sent = True
                return await call.wait()
            except trio.Cancelled:
                if self._tells and call.is_sent and not call.is_done:
                    self._cancelled.append(key)
                    self._tell_cancelled()
                raise
            finally:
                self._pending.remove(key)

    async def _send(self, request: Envelope, key: bytes) -> None:
        while self._may_send is not None:
            await self._may_send.wait()
        if self._is_closed:
            raise UnavailableError(_CLOSED)
        envelope = attrs.evolve(request, deadline=trio.current_effective_deadline())
        await self._socket.send(write_request(envelope, key, now=trio.current_time()))

    def _tell_cancelled(self) -> None:
        """Tell of the cancelled calls, if the other side knows what that is."""
        while self._is_greeted and self._cancelled:
            try:
                self._socket.send_nowait(write_cancellation(self._cancelled.popleft()))
            except trio.WouldBlock:  # it costs the callee work that nobody needs
                return

    async def receive(self) -> None:
        """Hand answers to those who wait for them, for ever.

        Cancellation: Is a checkpoint.
        """
        pace = Pace()
        while True:
            self._accept(await self._socket.next(pace))

    def connected(self) -> None:
        """Let requests be sent."""
        if self._may_send is not None:
            self._may_send.set()
            self._may_send = None

    def disconnected(self) -> None:
        """Fail the calls whose answer can come no more; what has come already is handed over first.

        Requests wait from now on until `connected`.
        """
        if self._may_send is None:
            self._may_send = trio.Event()
        while True:
            try:
                self._accept(self._socket.recv_nowait())
            except trio.WouldBlock:
                break
        self._is_greeted = False  # who comes next may be another
        self._cancelled.clear()
        text = "the connection broke while an answer was awaited; it may have been handled"
        self._pending.fail(lambda: UnknownOutcomeError(text), only_sent=True)

    def close(self) -> None:
        """Fail the calls under way and those to come."""
        self._is_closed = True
        self.connected()  # so that who waits for that finds it closed
        self._pending.fail(lambda: UnavailableError(_CLOSED))

    def _accept(self, frames: list[bytes]) -> None:
        if is_greeting(frames):
            self._is_greeted = True
            self._tell_cancelled()
            return
        answer = read_reply(frames)
        if answer is None:
            self._pending.late_replies += 1
        else:
            self._pending.answer(*answer)


def _same(answer: object) -> object:
    return answer
