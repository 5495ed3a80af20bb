"""Calls over a broker: a request goes to an exchange, its answer comes back to a queue of our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import attrs
import trio

from kernel import NO_HEADERS, Envelope, Message, new_id
from kernel.abc import Broker, Protocol
from kernel.errors import CallTimeoutError, KernelError, UnavailableError, UnknownOutcomeError


@final
@attrs.frozen(kw_only=True)
class RpcClientConfig:
    """The table of a driver `rpc_client`."""

    exchange: str = attrs.field(default="events", validator=attrs.validators.min_len(1))
    timeout: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds that a call may take, if the caller's own deadline is not sooner."""
    max_in_flight: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    """Calls at a time; more wait, inside their deadline."""
    declare: bool = True
    """Whether to make the exchange exist; if not, somebody else does."""
    bind_replies: bool = False
    """Whether to bind the queue of answers to `exchange` by its own name, for those who answer through it."""


@final
@attrs.define(eq=False)
class _Call:
    """A call under way."""

    done: trio.Event = attrs.field(factory=trio.Event)
    reply: Envelope | None = None
    error: KernelError | None = None

    def end(self, reply: Envelope | None = None, error: KernelError | None = None) -> None:
        self.reply, self.error = reply, error
        self.done.set()


@final
@attrs.define(eq=False)
class RpcClient:
    """Calls remote handlers and waits for their answers. Safe to share between tasks."""

    _broker: Broker
    _protocol: Protocol
    _config: RpcClientConfig
    _limiter: trio.CapacityLimiter = attrs.field(
        init=False,
        default=attrs.Factory(lambda self: trio.CapacityLimiter(self._config.max_in_flight), takes_self=True),
    )
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

    async def call(self, subject: str, payload: object, *, headers: Mapping[str, object] = NO_HEADERS) -> object:
        """Send a request and return what the answer carries.

        The request carries the caller's deadline, or `timeout` from the manifest if that is sooner: after it, nobody
        starts to handle it. The caller's own scope ends the call as it ends everything else.

        Args:
            subject: What is asked, in words joined by dots; exactly one queue should be bound for it.
            payload: What the protocol can write.
            headers: What JSON can say.

        Raises:
            RemoteError: if the other side answered with an error.
            CallTimeoutError: if no answer came within `timeout`.
            UnroutableError: if no queue is bound for the subject; at once.
            QueueFullError: if the queue that should get it is full.
            EncodeError: if the protocol cannot write the payload.
            DecodeError: if the answer means nothing in the protocol.
            UnknownOutcomeError: if the connection broke: the request may have been handled.
            UnavailableError: if the driver is closed.

        Cancellation: Is a checkpoint. If cancelled, the request may have been handled; its answer is dropped.
        """
        request = self._protocol.encode(Message(subject=subject, payload=payload, headers=headers))
        with trio.move_on_after(self._config.timeout):
            return self._protocol.decode_reply(await self._ask(request))
        raise CallTimeoutError(subject, seconds=self._config.timeout)

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

    async def _ask(self, request: Envelope) -> Envelope:
        async with self._limiter:
            await self._wait_connected()
            envelope = attrs.evolve(
                request,
                reply_to=self._address,
                correlation_id=new_id(),
                deadline=trio.current_effective_deadline(),
            )
            return await self._await_reply(envelope)

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
            await self._broker.send(envelope, exchange=self._config.exchange, mandatory=True)
            await call.done.wait()
        finally:
            del self._calls[envelope.correlation_id]
        if call.reply is None:
            assert call.error is not None  # a call ends in one of the two
            raise call.error
        return call.reply


def _closed() -> UnavailableError:
    return UnavailableError("the RPC client is closed")
