"""The calls under way: which of them an answer is for, and what becomes of them when no answers come any more."""

from __future__ import annotations

from typing import final

import attrs
import trio

from kernel import Envelope, PendingCalls, new_id
from kernel.abc import Broker
from kernel.errors import KernelError, UnavailableError, UnknownOutcomeError

from ._cancellation import Teller


@final
@attrs.define(eq=False, repr=False)
class Calls:
    """Sends requests to one exchange and gives each the answer that is for it. Safe to share between tasks."""

    _broker: Broker
    _exchange: str
    _limiter: trio.CapacityLimiter
    _teller: Teller | None = None
    """Tells callees of the calls that are cancelled; None if they are not to know."""
    _pending: PendingCalls[str] = attrs.field(factory=PendingCalls[str], init=False)
    """By correlation id."""
    _address: str = attrs.field(default="", init=False)
    """The queue that answers come to; empty while there is none."""
    _connected: trio.Event = attrs.field(factory=trio.Event, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    @property
    def in_flight(self) -> int:
        """Calls that wait for their answer."""
        return len(self._pending)

    @property
    def late_replies(self) -> int:
        """Answers that came when nobody waited for them any more, and second answers to one call."""
        return self._pending.late_replies

    async def ask(self, request: Envelope) -> Envelope:
        """Send a request, with the deadline of the caller, and return the answer to it.

        Raises:
            SendError: as `Broker.send`; `UnknownOutcomeError` also if the connection broke while it was awaited.
            UnavailableError: if the calls are closed.

        Cancellation: Is a checkpoint. If cancelled, the callee is told, and the request may have been handled; its
            answer is dropped.
        """
        await self._wait_slot()
        try:
            if self._closed or not self._address:
                await self._wait_connected()
            envelope = attrs.evolve(
                request,
                reply_to=self._address,
                correlation_id=new_id(),
                deadline=trio.current_effective_deadline(),
            )
            return await self._await_reply(envelope)
        finally:
            self._limiter.release()

    def connect(self, address: str) -> None:
        """Have answers come to a queue: calls can be made."""
        self._address = address
        self._connected.set()

    def disconnect(self, cause: KernelError) -> None:
        """Fail the calls under way, whose answers nobody brings; new ones wait for a connection."""
        self._address = ""
        if self._connected.is_set():  # whoever waits for a connection waits on this event, however often it breaks
            self._connected = trio.Event()

        def broken() -> UnknownOutcomeError:
            error = UnknownOutcomeError("the connection broke while an answer was awaited; it may have been handled")
            error.__cause__ = cause
            return error

        self._pending.fail(broken)

    def close(self) -> None:
        """Fail the calls under way and those to come."""
        self._closed = True
        self._pending.fail(_closed)
        self._connected.set()

    def accept(self, reply: Envelope) -> None:
        """Hand an answer to who waits for it."""
        self._pending.answer(reply.correlation_id, reply)

    async def _wait_slot(self) -> None:
        """Wait until one more may be under way; where one may, others have their turn when the request is sent."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._limiter.acquire_nowait()
        except trio.WouldBlock:
            await self._limiter.acquire()

    async def _wait_connected(self) -> None:
        while True:
            await self._connected.wait()
            if self._closed:
                raise _closed()
            if self._address:
                return

    async def _await_reply(self, envelope: Envelope) -> Envelope:
        call = self._pending.add(envelope.correlation_id)
        try:
            await self._broker.send(envelope, exchange=self._exchange, mandatory=True)
            return await call.wait()
        except trio.Cancelled:
            if self._teller is not None and not call.is_done:
                self._teller.tell(envelope)
            raise
        finally:
            self._pending.remove(envelope.correlation_id)


def _closed() -> UnavailableError:
    return UnavailableError("the RPC client is closed")
