"""Calls over a broker as a worker makes them: by subject and payload, or as a function is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, final, overload

import attrs
import trio
from typing_extensions import override

from kernel import NO_HEADERS, Message, Outgoing, payload_converter
from kernel.abc import ByFields, Caller, Context, Intercept, Protocol, continued, telling
from kernel.errors import CallTimeoutError

from ._calls import Calls
from ._cancellation import CANCEL_EXCHANGE

ReturnT = TypeVar("ReturnT")


def _needs_exchange(config: RpcClientConfig, _: object, value: bool) -> None:  # noqa: FBT001  as attrs calls it
    if value and not config.exchange:
        raise ValueError('bind_replies = true needs an exchange, and exchange = "" is none')


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class RpcClientConfig(ByFields):
    """The table of a driver `rpc_client`."""

    exchange: str = "events"
    """Empty sends each request straight to the queue that its subject names."""
    timeout: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds that a call may take, if the caller's own deadline is not sooner."""
    max_in_flight: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    """Calls at a time; more wait, inside their deadline."""
    declare: bool = True
    """Whether to make the exchange exist; if not, somebody else does."""
    bind_replies: bool = attrs.field(default=False, validator=_needs_exchange)
    """Whether to bind the queue of answers to `exchange` by its own name, for those who answer through it."""
    cancel_exchange: str | None = None
    """Where callees hear of calls that are cancelled or late; empty tells nobody, and so does None where `declare`
    is false, since the exchange may not exist."""

    @property
    def cancellations(self) -> str:
        """The exchange of the cancellations; empty for none."""
        default = CANCEL_EXCHANGE if self.declare else ""
        return default if self.cancel_exchange is None else self.cancel_exchange


@final
@attrs.frozen(eq=False, repr=False)
class RpcClient(Caller):
    """Calls remote handlers and waits for their answers. Safe to share between tasks.

    `await rpc.billing.charge(order, amount=3)` is `await rpc.call("billing.charge", Arguments((order,), {"amount": 3}))`.
    A subject whose first word is a name of the client itself, or begins with an underscore, is written as an item:
    `rpc["call"]`, `rpc["billing.charge"]`.
    """

    _calls: Calls
    _protocol: Protocol
    _timeout: float
    _exchange: str
    _context: Context

    def __repr__(self) -> str:
        return f"<RpcClient with {self.in_flight} calls in flight>"

    @property
    def in_flight(self) -> int:
        """Calls that wait for their answer."""
        return self._calls.in_flight

    @property
    def late_replies(self) -> int:
        """Answers that came when nobody waited for them any more, and second answers to one call."""
        return self._calls.late_replies

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

        The request carries the caller's deadline, or `timeout` from the manifest if that is sooner: after it, nobody
        starts to handle it. The caller's own scope ends the call as it ends everything else.

        Args:
            subject: What is asked, in words joined by dots; exactly one queue should be bound for it.
            payload: What the protocol can write; `Arguments` for a handler that is marked with `@answers`.
            headers: What JSON can say. What the protocol continues from the delivery that is being handled is added.
            returns: The type that the answer is converted to, as the payload of a handler is: `returns=Quote`,
                `returns=list[Quote]`. `object` takes it as it comes, or as the
                driver's contract says.

        Raises:
            RemoteError: if the other side answered with an error.
            Exception: of a class that the protocol's configuration lists, if that is the error.
            CallTimeoutError: if no answer came within `timeout`.
            UnroutableError: if no queue is bound for the subject; at once.
            QueueFullError: if the queue that should get it is full.
            EncodeError: if the protocol cannot write the payload; `ContractError` if it is not what the driver's
                contract promises, or the subject is not in it. Nothing was sent.
            DecodeError: if the answer means nothing in the protocol.
            ConversionError: if it means something, but is not what `returns` asks for; the other side has done its work.
            TypeError: if nothing can be converted to `returns`; nothing was sent.
            UnknownOutcomeError: if the connection broke: the request may have been handled.
            UnavailableError: if the driver is closed.
            Exception: what an interceptor raises.

        Cancellation: Is a checkpoint. If cancelled, the callee is told, and the request may have been handled; its
            answer is dropped.
        """
        convert = _same if returns is object else payload_converter(returns)
        if self._context.contract is not None:
            promised = self._context.contract.sending(subject, payload)
            convert = promised if returns is object else convert
        with telling(self._context, subject, exchange=self._exchange, is_call=True):
            message = Message(subject=subject, payload=payload, headers=continued(self._protocol, headers))
            if self._context.intercept is not None:
                return convert(await self._call_within(self._context.intercept, message))
            request = self._protocol.encode(message)
            until = trio.current_time() + self._timeout
            with trio.CancelScope(deadline=until):  # as `move_on_after`, which takes longer
                return convert(self._protocol.decode_reply(await self._calls.ask(request)))
            raise CallTimeoutError(subject, seconds=self._timeout)

    async def _call_within(self, intercept: Intercept, message: Message) -> object:
        """Call within interceptors, which see the answer as it came and what is raised because of it."""
        outgoing = Outgoing(message.subject, message.payload, dict(message.headers), is_call=True)

        async def ask() -> object:
            request = self._protocol.encode(attrs.evolve(message, headers=outgoing.headers))
            outgoing.answer = await self._calls.ask(request)
            return self._protocol.decode_reply(outgoing.answer)

        with trio.move_on_after(self._timeout):
            return await intercept(outgoing, ask)
        raise CallTimeoutError(message.subject, seconds=self._timeout)


def _same(answer: object) -> object:
    return answer
