"""The driver `zmq_publish`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, cast, final

import attrs
import trio
import zmq
from typing_extensions import override

from kernel import NO_HEADERS, Envelope, Message, Outgoing, Pace
from kernel.abc import Context, Driver, Endpoint, Intercept, Sender, continued, telling
from kernel.errors import EncodeError, QueueFullError

from ._config import Framing, PublishConfig, not_shared, places, problems
from ._opening import open_socket
from ._socket import Socket
from ._wire import write_publication

_MAX_SUBJECT: Final = 65535
"""Bytes: what MessagePack can say of a string in two bytes."""


@final
@attrs.frozen(eq=False, repr=False)
class ZmqPublisher(Sender):
    """Publishes to those who are subscribed at the moment. Safe to share between tasks."""

    _socket: Socket
    _context: Context
    _framing: Framing
    _pace: Pace = attrs.field(factory=Pace, init=False)

    @override
    async def publish(self, subject: str, payload: object, *, headers: Mapping[str, object] = NO_HEADERS) -> str:
        """Publish a message; returns its id when libzmq has taken it for those who are subscribed.

        With `full = "drop"`, a subscriber that is too far behind does not get it.

        Raises:
            EncodeError: if the protocol cannot write the payload, or the subject or the headers are too long;
                `ContractError` if it is not what the driver's contract promises.
            QueueFullError: with `full = "refuse"`, if a subscriber is too far behind; nobody got it.

        Cancellation: Is a checkpoint. If cancelled, it was not published.

        Delivery: At most once.
        """
        if self._context.contract is not None:
            self._context.contract.sending(subject, payload)
        message = Message(subject=subject, payload=payload, headers=continued(self._context.protocol, headers))
        if self._context.intercept is not None:
            return await self._publish_within(self._context.intercept, message)
        envelope = self._written(message)
        await self._pace.step()
        with telling(self._context, subject, is_call=False):
            self._send(envelope)
        return envelope.id

    async def _publish_within(self, intercept: Intercept, message: Message) -> str:
        outgoing = Outgoing(message.subject, message.payload, dict(message.headers))

        async def publish() -> str:
            envelope = self._written(attrs.evolve(message, headers=outgoing.headers))
            await self._pace.step()
            self._send(envelope)
            return envelope.id

        with telling(self._context, message.subject, is_call=False):
            return await intercept(outgoing, publish)

    def _written(self, message: Message) -> Envelope:
        if len(message.subject.encode()) > _MAX_SUBJECT:
            raise EncodeError(f"a subject takes at most {_MAX_SUBJECT} bytes")
        return self._context.protocol.encode(message)

    def _send(self, envelope: Envelope) -> None:
        try:
            self._socket.send_nowait(write_publication(envelope, self._framing))
        except trio.WouldBlock:
            raise QueueFullError(f'a subscriber to "{envelope.subject}" is send_high_water behind') from None


@final
class PublishDriver(Driver[ZmqPublisher]):
    """Gives workers a `ZmqPublisher`."""

    Config: ClassVar[type[object]] = PublishConfig
    speaks: ClassVar[bool] = True
    sends: ClassVar[bool] = True
    intercepts: ClassVar[bool] = True
    provides: ClassVar[type[object]] = ZmqPublisher

    def __init__(self, *, config: PublishConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        return problems(cast("PublishConfig", config))

    @classmethod
    @override
    def listens(cls, config: object) -> Iterable[Endpoint]:
        return places(cast("PublishConfig", config).bind)

    @classmethod
    @override
    def check_shared(cls, config: object) -> Iterable[str]:
        return not_shared(cast("PublishConfig", config).bind)

    @override
    def open(self) -> AbstractAsyncContextManager[ZmqPublisher]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[ZmqPublisher]:
        config = self._config
        options = {zmq.XPUB_NODROP: 1} if config.full == "refuse" else {}
        async with open_socket(
            zmq.PUB, config, self._context, bind=config.bind, connect=config.connect, options=options
        ) as socket:
            yield ZmqPublisher(socket, self._context, config.framing)
