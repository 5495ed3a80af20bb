"""The driver `event_sender`: workers send events with it."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, final

import attrs
import trio
from typing_extensions import override

from kernel import NO_HEADERS, Envelope, Message, Outgoing
from kernel.abc import Broker, Context, Driver, Exchange, Topology, Transaction, continued, telling
from kernel.errors import SendError, UnknownOutcomeError

from ._event import VERSION, spec_of


@final
@attrs.frozen(kw_only=True)
class EventSenderConfig:
    """The table of a driver `event_sender`."""

    exchange: str = attrs.field(default="events", validator=attrs.validators.min_len(1))
    """Where events go to; that of the dispatchers `event_listener`."""
    timeout: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds that a send may wait for the broker."""


@final
@attrs.frozen(eq=False, repr=False)
class Events:
    """Sends events; what a worker gets from a driver `event_sender`."""

    _context: Context
    _config: EventSenderConfig

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
            TypeError: if its class is no event.
            EncodeError: if the protocol cannot write it.
            QueueFullError: if the queue of a listener is full.
            SendError: if the interceptors took longer than `timeout`.
            UnknownOutcomeError: if it cannot be known whether it was taken, also because `timeout` was over.
            UnavailableError: if the transaction is over, or the driver closed.
            Exception: what an interceptor raises.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been sent.
        """
        spec, context = spec_of(of or type(event)), self._context
        with telling(context, spec.subject, exchange=self._config.exchange, is_call=False):
            given = {**continued(context.protocol, headers), VERSION: str(spec.version)}
            posting = _Posting(context, self._config, spec.subject, event, id, delay, transaction)
            return await posting.within(given)


@final
@attrs.define(eq=False, repr=False)
class _Posting:
    """One event on its way out."""

    _context: Context
    _config: EventSenderConfig
    _subject: str
    _event: object
    _id: str
    _delay: float
    _transaction: Transaction | None
    _envelope: Envelope | None = attrs.field(default=None, init=False)
    """None before the interceptors have let it through."""

    async def within(self, headers: dict[str, object]) -> str:
        """Send it within interceptors, if there are any, and within its time; return the id."""
        seconds = self._config.timeout
        if self._transaction is not None:
            return await self._through(headers)
        with trio.move_on_after(seconds):
            return await self._through(headers)
        if self._envelope is None:
            raise SendError(f'the interceptors did not let "{self._subject}" through within {seconds:g} s')
        raise UnknownOutcomeError(
            f'the broker did not take "{self._subject}" within {seconds:g} s; it may take it later: send it again with'
            f' id="{self._envelope.id}"'
        )

    def _through(self, headers: dict[str, object]) -> Awaitable[str]:
        if self._context.intercept is None:
            return self._send(headers)
        outgoing = Outgoing(self._subject, self._event, headers)
        return self._context.intercept(outgoing, functools.partial(self._send, headers))

    async def _send(self, headers: Mapping[str, object]) -> str:
        message = Message(subject=self._subject, payload=self._event, headers=headers)
        envelope = self._context.protocol.encode(message)
        if self._id or self._delay:  # a copy costs much
            envelope = attrs.evolve(envelope, id=self._id or envelope.id, delay=self._delay)
        self._envelope = envelope
        if self._transaction is not None:
            await self._transaction.send(envelope, exchange=self._config.exchange)
        else:
            await self._context.broker.send(envelope, exchange=self._config.exchange)
        return envelope.id


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
        await self._context.broker.declare(Topology(exchanges=[Exchange(name=self._config.exchange)]))
        yield Events(self._context, self._config)
