"""The calls under way: which of them an answer is for, and what becomes of them when no answers come any more."""

from __future__ import annotations

from typing import final

import attrs
import trio

from kernel import Envelope, new_id
from kernel.abc import Broker
from kernel.errors import KernelError, UnavailableError, UnknownOutcomeError

from ._cancellation import Teller


@final
@attrs.define(eq=False, repr=False)
class _Call:
    """A call under way."""

    done: trio.Event = attrs.field(factory=trio.Event)
    reply: Envelope | None = None
    error: KernelError | None = None

    def end(self, reply: Envelope | None = None, error: KernelError | None = None) -> None:
        self.reply, self.error = reply, error
        self.done.set()


@final
@attrs.define(eq=False, repr=False)
class Calls:
    """Sends requests to one exchange and gives each the answer that is for it. Safe to share between tasks."""

    _broker: Broker
    _exchange: str
    _limiter: trio.CapacityLimiter
    _teller: Teller | None = None
    """Tells callees of the calls that are cancelled; None if they are not to know."""
    _calls: dict[str, _Call] = attrs.field(factory=dict[str, _Call], init=False)
    """By correlation id."""
    _address: str = attrs.field(default="", init=False)
    """The queue that answers come to; empty while there is none."""
    _connected: trio.Event = attrs.field(factory=trio.Event, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    late_replies: int = attrs.field(default=0, init=False)
    """Answers that came when nobody waited for them any more, and second answers to one call."""

    @property
    def in_flight(self) -> int:
        """Calls that wait for their answer."""
        return len(self._calls)

    async def ask(self, request: Envelope) -> Envelope:
        """Send a request, with the deadline of the caller, and return the answer to it.

        Raises:
            SendError: as `Broker.send`; `UnknownOutcomeError` also if the connection broke while it was awaited.
            UnavailableError: if the calls are closed.

        Cancellation: Is a checkpoint. If cancelled, the callee is told, and the request may have been handled; its
            answer is dropped.
        """
        async with self._limiter:
            await self._wait_connected()
            envelope = attrs.evolve(
                request,
                reply_to=self._address,
                correlation_id=new_id(),
                deadline=trio.current_effective_deadline(),
            )
            return await self._await_reply(envelope)

    def connect(self, address: str) -> None:
        """Have answers come to a queue: calls can be made."""
        self._address = address
        self._connected.set()

    def disconnect(self, cause: KernelError) -> None:
        """Fail the calls under way, whose answers nobody brings; new ones wait for a connection."""
        self._address = ""
        if self._connected.is_set():  # whoever waits for a connection waits on this event, however often it breaks
            self._connected = trio.Event()
        for call in self._calls.values():
            error = UnknownOutcomeError("the connection broke while an answer was awaited; it may have been handled")
            error.__cause__ = cause
            call.end(error=error)

    def close(self) -> None:
        """Fail the calls under way and those to come."""
        self._closed = True
        for call in self._calls.values():
            call.end(error=_closed())
        self._connected.set()

    def accept(self, reply: Envelope) -> None:
        """Hand an answer to who waits for it."""
        call = self._calls.get(reply.correlation_id)
        if call is None or call.done.is_set():
            self.late_replies += 1
        else:
            call.end(reply)

    async def _wait_connected(self) -> None:
        while True:
            await self._connected.wait()
            if self._closed:
                raise _closed()
            if self._address:
                return

    async def _await_reply(self, envelope: Envelope) -> Envelope:
        call = self._calls[envelope.correlation_id] = _Call()
        try:
            await self._broker.send(envelope, exchange=self._exchange, mandatory=True)
            await call.done.wait()
        except trio.Cancelled:
            if self._teller is not None and not call.done.is_set():
                self._teller.tell(envelope)
            raise
        finally:
            del self._calls[envelope.correlation_id]
        if call.reply is None:
            assert call.error is not None  # a call ends in one of the two
            raise call.error
        return call.reply


def _closed() -> UnavailableError:
    return UnavailableError("the RPC client is closed")
