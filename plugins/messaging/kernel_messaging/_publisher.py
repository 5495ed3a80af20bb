"""The driver `publisher`: a worker's way to tell others what happened."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, final

import attrs
import trio
from typing_extensions import override

from kernel import NO_HEADERS, Envelope, Message, Outgoing
from kernel.abc import (
    Broker,
    ByFields,
    Capability,
    Context,
    Driver,
    Exchange,
    Intercept,
    Protocol,
    Sender,
    Topology,
    Transaction,
    continued,
    current_work,
    telling,
    untold,
)
from kernel.errors import SendError, UnknownOutcomeError, check_delay

REQUEST_TIMEOUT: Final = 10.0
"""Seconds that a publish in a request may take, where the manifest says nothing: a client waits for it."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class PublisherConfig(ByFields):
    """The table of a driver `publisher`."""

    exchange: str = "events"
    """Empty sends each message straight to the queue that its subject names."""
    mandatory: bool | None = None
    """Whether a message that no queue gets is an error; without it, one is dropped and was published all the same. None
    is yes where the broker can tell, which it has the capability `mandatory` for."""
    deadline: bool = False
    """Whether messages carry the deadline of who publishes them."""
    timeout: float | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.gt(0)))
    """Seconds that a publish may wait for the broker. None is 10 in a request, such as one of the web, and no limit but
    the caller's own elsewhere: a handler or a loop of a worker waits until the broker is back."""
    declare: bool = True
    """Whether to make the exchange exist; if not, somebody else does."""


@final
@attrs.frozen(eq=False, repr=False)
class Publisher(Sender):
    """Publishes messages to one exchange, or straight to queues. Safe to share between tasks."""

    _broker: Broker
    _protocol: Protocol
    _config: PublisherConfig
    _context: Context

    def __repr__(self) -> str:
        return f"<Publisher to {self._config.exchange!r}>"

    @override
    async def publish(
        self,
        subject: str,
        payload: object,
        *,
        headers: Mapping[str, object] = NO_HEADERS,
        delay: float = 0.0,
        priority: int = 0,
        id: str = "",
        transaction: Transaction | None = None,
    ) -> str:
        """Publish a message; returns its id when the broker has taken responsibility.

        A message does not inherit the caller's deadline: what happened stays true when the caller has no more time.
        With `deadline = true` in the manifest it does, and is not handled after it.

        Args:
            subject: What it is about, in words joined by dots (`order.created`); with `exchange = ""` the name of a queue.
            payload: What the protocol can write.
            headers: What JSON can say. What the protocol continues from the delivery that is being handled is added.
            delay: Seconds before it is delivered; needs a broker with the capability `delay`.
            priority: 0 to 9, 9 first; needs a broker with the capability `priority`.
            id: The message's id; empty takes that which the protocol writes, or a new one. Publish again with the same id after an
                `UnknownOutcomeError`, so that whoever keeps ids can tell a repeated message.
            transaction: Publish when it is committed, and only then, through the database that it is of; None
                publishes now.

        Returns:
            The id.

        Raises:
            EncodeError: if the protocol cannot write the payload; `ContractError` if it is not what the driver's
                contract promises, or the subject is not in it.
            UnroutableError: unless `mandatory = false`: if no queue is bound for the subject, or none has that name; of
                brokers with the capability `mandatory`.
            QueueFullError: if a queue that should get it is full; then no queue got it, if the broker has the
                capability `all_or_nothing`, and otherwise those that were not full did.
            UnknownOutcomeError: if it cannot be known whether it was taken, also because `timeout` was over.
            UnavailableError: if the transaction is over.
            ValueError: if delay or priority are out of range; TypeError if they are no numbers.
            Exception: what an interceptor raises.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been published.

        Delivery: As the broker: at least once, to every queue that is bound when it is published.
        """
        if delay or priority:  # most have neither
            _check(delay, priority)
        if self._context.contract is not None:
            self._context.contract.sending(subject, payload)
        intercept = self._context.intercept
        # Interceptors may look at what is taken along, and send something themselves: for them it is set.
        if intercept is None and (along := untold(self._context)) is not None:
            message = Message(subject=subject, payload=payload, headers=continued(self._protocol, headers, along))
            envelope = self._envelope(message, id, delay, priority)
            await self._sent(envelope, transaction, self._timeout())
            return envelope.id
        exchange, is_asked = self._config.exchange, intercept is None
        with telling(self._context, subject, exchange=exchange, is_call=False, is_asked=is_asked):
            given = continued(self._protocol, headers)
            if intercept is None:
                envelope = self._envelope(Message(subject=subject, payload=payload, headers=given), id, delay, priority)
                await self._sent(envelope, transaction, self._timeout())
                return envelope.id
            outgoing = Outgoing(subject, payload, dict(given) if given else {})
            seconds = self._timeout() if transaction is None else None
            if seconds is None:
                return await intercept(outgoing, self._post, outgoing, id, delay, priority, transaction)
            return await self._post_within(seconds, intercept, outgoing, id, delay, priority)

    async def _post(
        self,
        outgoing: Outgoing,
        id: str,  # noqa: A002
        delay: float,
        priority: int,
        transaction: Transaction | None,
        posted: list[Envelope] | None = None,
    ) -> str:
        """Publish what interceptors have let through, and note it."""
        message = Message(subject=outgoing.subject, payload=outgoing.payload, headers=outgoing.headers)
        envelope = self._envelope(message, id, delay, priority)
        if posted is not None:
            posted.append(envelope)
        await self._sent(envelope, transaction, None)
        return envelope.id

    async def _post_within(
        self,
        seconds: float,
        intercept: Intercept,
        outgoing: Outgoing,
        id: str,  # noqa: A002
        delay: float,
        priority: int,
    ) -> str:
        """Publish within interceptors, all of it within the time that a publish may take."""
        posted: list[Envelope] = []
        with trio.move_on_after(seconds):
            return await intercept(outgoing, self._post, outgoing, id, delay, priority, None, posted)
        if not posted:
            raise SendError(f'the interceptors did not let "{outgoing.subject}" through within {seconds:g} s')
        raise _too_late(posted[0], seconds)

    def _envelope(self, message: Message, id: str, delay: float, priority: int) -> Envelope:  # noqa: A002
        envelope = self._protocol.encode(message)
        if not (id or delay or priority or self._config.deadline):  # a copy costs much
            return envelope
        deadline = trio.current_effective_deadline() if self._config.deadline else math.inf
        return attrs.evolve(envelope, id=id or envelope.id, delay=delay, priority=priority, deadline=deadline)

    def _timeout(self) -> float | None:
        if self._config.timeout is not None:
            return self._config.timeout
        return None if current_work() is None else REQUEST_TIMEOUT

    def _sent(self, envelope: Envelope, transaction: Transaction | None, seconds: float | None) -> Awaitable[object]:
        exchange, mandatory = self._config.exchange, self._config.mandatory is not False
        if transaction is not None:
            return transaction.send(envelope, exchange=exchange, mandatory=mandatory)
        if seconds is not None:
            return self._send_within(seconds, envelope)
        return self._broker.send(envelope, exchange=exchange, mandatory=mandatory)

    async def _send_within(self, seconds: float, envelope: Envelope) -> None:
        with trio.move_on_after(seconds):
            await self._broker.send(
                envelope, exchange=self._config.exchange, mandatory=self._config.mandatory is not False
            )
            return
        raise _too_late(envelope, seconds)


def _too_late(envelope: Envelope, seconds: float) -> UnknownOutcomeError:
    return UnknownOutcomeError(
        f'the broker did not take "{envelope.subject}" within {seconds:g} s; it may take it later: publish it again'
        f' with id="{envelope.id}"'
    )


@final
class PublisherDriver(Driver[Publisher]):
    """Gives workers a `Publisher`."""

    Config: ClassVar[type[object]] = PublisherConfig
    needs: ClassVar[type[object] | None] = Broker
    speaks: ClassVar[bool] = True
    sends: ClassVar[bool] = True
    intercepts: ClassVar[bool] = True
    provides: ClassVar[type[object]] = Publisher

    @classmethod
    @override
    def requires(cls, config: object) -> frozenset[Capability]:
        assert isinstance(config, PublisherConfig)
        return frozenset({Capability.MANDATORY}) if config.mandatory else frozenset()

    def __init__(self, *, config: PublisherConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @override
    def open(self) -> AbstractAsyncContextManager[Publisher]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Publisher]:
        broker = self._context.broker
        if self._config.declare and self._config.exchange:
            await broker.declare(Topology(exchanges=[Exchange(name=self._config.exchange)]))
        else:
            await trio.lowlevel.checkpoint()
        yield Publisher(broker, self._context.protocol, self._config, self._context)


def _check(delay: object, priority: object) -> None:
    check_delay(delay, "delay")
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise TypeError(f"`priority` is an integer, not {type(priority).__name__}")
    if not 0 <= priority <= 9:
        raise ValueError(f"`priority` is from 0 to 9, not {priority}")
