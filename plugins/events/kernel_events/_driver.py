"""The driver `event_sender`: workers send events with it."""

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
    Context,
    Driver,
    Exchange,
    Protocol,
    Topology,
    Transaction,
    continued,
    current_work,
    telling,
)
from kernel.errors import SendError, UnknownOutcomeError, check_delay

from ._event import VERSION, spec_of

_REQUEST_TIMEOUT: Final = 10.0
"""Seconds that a send in a request may take, where the manifest says nothing: a client waits for it."""


@final
@attrs.frozen(kw_only=True)
class EventSenderConfig:
    """The table of a driver `event_sender`."""

    exchange: str = attrs.field(default="events", validator=attrs.validators.min_len(1))
    """Where events go to; that of the dispatchers `event_listener`."""
    timeout: float | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.gt(0)))
    """Seconds that a send may wait for the broker. None is 10 in a request, such as one of the web, and no limit but the
    caller's own elsewhere."""

    @property
    def limit(self) -> float | None:
        """Seconds that a send of this task may take; None for no limit."""
        if self.timeout is not None:
            return self.timeout
        return None if current_work() is None else _REQUEST_TIMEOUT


@final
@attrs.frozen(eq=False, repr=False)
class Events:
    """Sends events; what a worker gets from a driver `event_sender`."""

    _broker: Broker
    _protocol: Protocol
    _config: EventSenderConfig
    _context: Context

    def __repr__(self) -> str:
        return f'<Events to "{self._config.exchange}">'

    async def send(
        self,
        event: object,
        *,
        headers: Mapping[str, object] = NO_HEADERS,
        of: type[object] | None = None,
        delay: float = 0.0,
        id: str = "",  # noqa: A002  the word on the envelope
        transaction: Transaction | None = None,
    ) -> str:
        """Send an event to all that listen to it; returns its id when the broker has taken responsibility.

        That nobody listens is no error.

        Args:
            event: An instance of a class that is marked with `@event`.
            headers: What JSON can say. What the protocol continues from the delivery that is being handled is added.
            of: Its class, if it cannot be told from the instance: of a TypedDict.
            delay: Seconds before its first delivery; needs a broker with the capability `delay`.
            id: The id of its message; empty makes a new one. Send again with the same id after an
                `UnknownOutcomeError`, so that whoever keeps ids can tell a repeated message.
            transaction: Send when it is committed, and only then, through the database that it is of; None sends now.

        Raises:
            TypeError: if its class is no event, or `delay` no number.
            ValueError: if `delay` is out of range.
            EncodeError: if the protocol cannot write it.
            QueueFullError: if the queue of a listener is full.
            SendError: if the interceptors took longer than `timeout`.
            UnknownOutcomeError: if it cannot be known whether it was taken, also because `timeout` was over.
            UnavailableError: if the transaction is over, or the driver closed.
            Exception: what an interceptor raises.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been sent.
        """
        if delay:
            check_delay(delay, "delay")
        spec, context = spec_of(of or type(event)), self._context
        with telling(context, spec.subject, exchange=self._config.exchange, is_call=False):
            given = continued(self._protocol, headers)
            if spec.version > 1:
                given = {**given, VERSION: str(spec.version)}
            limit = self._config.limit
            if context.intercept is None and limit is None:
                envelope = self._envelope(spec.subject, event, given, id, delay)
                await self._sent(envelope, transaction)
                return envelope.id
            outgoing = Outgoing(spec.subject, event, dict(given))
            seconds = None if transaction is not None else limit
            return await self._post_within(seconds, outgoing, id, delay, transaction)

    async def _post(
        self,
        outgoing: Outgoing,
        id: str,  # noqa: A002  as above
        delay: float,
        transaction: Transaction | None,
        posted: list[Envelope],
    ) -> str:
        """Send what interceptors have let through, and note it."""
        envelope = self._envelope(outgoing.subject, outgoing.payload, outgoing.headers, id, delay)
        posted.append(envelope)
        await self._sent(envelope, transaction)
        return envelope.id

    def _envelope(
        self,
        subject: str,
        event: object,
        headers: Mapping[str, object],
        id: str,  # noqa: A002  as above
        delay: float,
    ) -> Envelope:
        envelope = self._protocol.encode(Message(subject=subject, payload=event, headers=headers))
        if id or delay:  # a copy costs much
            return attrs.evolve(envelope, id=id or envelope.id, delay=delay)
        return envelope

    def _sent(self, envelope: Envelope, transaction: Transaction | None) -> Awaitable[object]:
        if transaction is not None:
            return transaction.send(envelope, exchange=self._config.exchange, mandatory=False)
        return self._broker.send(envelope, exchange=self._config.exchange)

    async def _post_within(
        self,
        seconds: float | None,
        outgoing: Outgoing,
        id: str,  # noqa: A002  as above
        delay: float,
        transaction: Transaction | None,
    ) -> str:
        """Send within interceptors, if there are any, all of it within the time that a send may take."""
        posted: list[Envelope] = []
        intercept, known = self._context.intercept, (outgoing, id, delay, transaction, posted)
        with trio.move_on_after(math.inf if seconds is None else seconds):
            return await (self._post(*known) if intercept is None else intercept(outgoing, self._post, *known))
        if not posted:
            raise SendError(f'the interceptors did not let "{outgoing.subject}" through within {seconds:g} s')
        raise UnknownOutcomeError(
            f'the broker did not take "{outgoing.subject}" within {seconds:g} s; it may take it later: send it again with'
            f' id="{posted[0].id}"'
        )


@final
class EventSenderDriver(Driver[Events]):
    """Gives workers `Events`."""

    Config: ClassVar[type[object]] = EventSenderConfig
    needs: ClassVar[type[object] | None] = Broker
    speaks: ClassVar[bool] = True
    intercepts: ClassVar[bool] = True
    provides: ClassVar[type[object]] = Events

    def __init__(self, *, config: EventSenderConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @override
    def open(self) -> AbstractAsyncContextManager[Events]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Events]:
        broker = self._context.broker
        await broker.declare(Topology(exchanges=[Exchange(name=self._config.exchange)]))
        yield Events(broker, self._context.protocol, self._config, self._context)
