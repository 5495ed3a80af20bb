"""What a settled delivery sends: its reply, the copy that is tried again, its dead letter. Each is confirmed."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, final

import attrs
import trio
from structlog.typing import FilteringBoundLogger

from kernel import Envelope, Event
from kernel.abc import Queue
from kernel.errors import EncodeError, QueueFullError, SendError, UnknownOutcomeError, UnroutableError

from ..core import TooLarge
from .delays import Kind
from .delivery import AmqpDelivery
from .events import MessageDropped
from .letters import clean, write_dead_letter, write_letter, write_retry
from .outbox import Outbox
from .postponing import Postponer
from .topology import options_of, refuses

_FULL_WAIT: Final = 1.0
"""Seconds until a message is offered again to a queue that is full."""


@final
@attrs.define(eq=False, repr=False)
class Post:
    """Sends for those who settle. Whoever is not sure whether something was sent sends it again."""

    component: str
    log: FilteringBoundLogger
    emit: Callable[[Event], None]
    outbox: Outbox
    postponer: Postponer
    redeclare: Callable[[str], Awaitable[bool]]
    """Makes a queue exist again that this service has declared; returns whether it has."""
    delay_queues: Kind
    """What delay queues are where nothing asks for more."""

    async def reply(self, reply: Envelope, *, exchange: str) -> None:
        """Send an answer; if nobody can get it, it is dropped, with an event.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            letter = write_letter(reply, now=trio.current_time())
            await _surely(
                partial(
                    self.outbox.publish,
                    letter,
                    reply.body,
                    exchange=exchange,
                    routing_key=reply.subject,
                    mandatory=True,
                )
            )
        except (SendError, EncodeError, ValueError) as error:
            self.drop(reply, queue=reply.subject, reason=f"no way to answer: {error}")

    async def again(self, delivery: AmqpDelivery, *, queue: str, after: float, spec: Queue | None) -> None:
        """Send the copy of a delivery that its queue gets after some seconds.

        Cancellation: as `reply`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        body, kind = delivery.event.body, self.delay_kind(spec)
        letter = write_retry(
            delivery.event, delivery.envelope, attempts=delivery.attempt, after=after, now=trio.current_time()
        )
        if after <= 0:
            try:
                await _surely(
                    partial(self.outbox.publish, letter, body, exchange="", routing_key=queue, mandatory=True)
                )
            except QueueFullError:
                after, kind = _FULL_WAIT, "quorum"
            except UnroutableError:
                self.drop(delivery.envelope, queue=queue, reason="its queue is gone")
        if after > 0:
            await _surely(
                partial(self.postponer.publish, letter, body, exchange="", routing_key=queue, delay=after, kind=kind)
            )

    async def bury(self, delivery: AmqpDelivery, *, queue: str, grave: str, reason: str) -> None:
        """Send the dead letter of a delivery; waits while its queue is full.

        Raises:
            UnroutableError: if the queue for it is gone, and was not declared here.

        Cancellation: as `reply`.
        """
        letter = write_dead_letter(
            delivery.event, delivery.envelope, reason=reason, queue=queue, attempts=delivery.attempt
        )
        publish = partial(
            self.outbox.publish, letter, delivery.event.body, exchange="", routing_key=grave, mandatory=True
        )
        while not await self._is_taken(publish, grave):  # noqa: ASYNC110  the broker does not say when there is room
            await trio.sleep(_FULL_WAIT)

    async def _is_taken(self, publish: Callable[[], Awaitable[None]], grave: str) -> bool:
        """Send a dead letter; return whether its queue had room."""
        try:
            await _surely(publish)
        except QueueFullError:
            return False  # noqa: ASYNC910  the broker has answered
        except UnroutableError as error:
            gone = error
        else:
            return True
        if not await self.redeclare(grave):
            raise gone
        await _surely(publish)
        return True

    def refuse(self, event: TooLarge, *, queue: str, is_lost: bool) -> None:
        """Say that a message was too large to be read, and whether nobody has it."""
        self.log.error("a message is larger than max_message_bytes", queue=queue, bytes=event.size, is_lost=is_lost)
        if is_lost:
            self.drop(Envelope(subject=clean(event.routing_key)), queue=queue, reason=f"too large: {event.size} bytes")

    def delay_kind(self, queue: Queue | None) -> Kind:
        """Return what a delay queue has to be in front of a queue.

        One of the classic type forgets a message as soon as it has sent it on: a queue that is full would lose it.
        """
        if queue is not None and (options_of(queue).type == "quorum" or refuses(queue)):
            return "quorum"
        return self.delay_queues

    def drop(self, envelope: Envelope, *, queue: str, reason: str) -> None:
        """Say that a message ends nowhere."""
        self.emit(
            MessageDropped(
                component=self.component,
                queue=queue,
                reason=reason,
                message_id=envelope.id,
                subject=envelope.subject,
            )
        )


async def _surely(publish: Callable[[], Awaitable[None]]) -> None:
    while True:
        with contextlib.suppress(UnknownOutcomeError):
            await publish()
            return
        await trio.lowlevel.checkpoint()
