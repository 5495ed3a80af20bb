"""The driver `event_sender`: workers send events with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, final

import attrs
import trio
from typing_extensions import override

from kernel import NO_HEADERS, Envelope, Message, current_delivery
from kernel.abc import Broker, Context, Driver, Exchange, Protocol, Topology, Transaction
from kernel.errors import UnknownOutcomeError

from ._event import VERSION, EventSpec, spec_of


@final
@attrs.frozen(kw_only=True)
class EventSenderConfig:
    """The table of a driver `event_sender`."""

    exchange: str = attrs.field(default="events", validator=attrs.validators.min_len(1))
    """Where events go to; that of the dispatchers `event_listener`."""
    timeout: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds that a send may wait for the broker."""


@final
@attrs.frozen(repr=False)
class Events:
    """Sends events; what a worker gets from a driver `event_sender`."""

    _broker: Broker
    _protocol: Protocol
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
            UnknownOutcomeError: if it cannot be known whether it was taken, also because `timeout` was over.
            UnavailableError: if the transaction is over, or the driver closed.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been sent.
        """
        envelope = self._written(event, spec_of(of or type(event)), headers)
        envelope = attrs.evolve(envelope, id=id or envelope.id, delay=delay)
        if transaction is not None:
            await transaction.send(envelope, exchange=self._config.exchange)
            return envelope.id
        with trio.move_on_after(self._config.timeout):
            await self._broker.send(envelope, exchange=self._config.exchange)
            return envelope.id
        raise UnknownOutcomeError(
            f'the broker did not take "{envelope.subject}" within {self._config.timeout:g} s; it may take it later:'
            f' send it again with id="{envelope.id}"'
        )

    def _written(self, event: object, spec: EventSpec, headers: Mapping[str, object]) -> Envelope:
        delivery = current_delivery()
        inherited = NO_HEADERS if delivery is None else self._protocol.continued(delivery.envelope)
        given = {**inherited, **headers, VERSION: str(spec.version)}
        return self._protocol.encode(Message(subject=spec.subject, payload=event, headers=given))


@final
class EventSenderDriver(Driver[Events]):
    """Gives workers `Events`."""

    Config: ClassVar[type[object]] = EventSenderConfig
    needs: ClassVar[type[object] | None] = Broker
    speaks: ClassVar[bool] = True
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
        yield Events(self._context.broker, self._context.protocol, self._config)
