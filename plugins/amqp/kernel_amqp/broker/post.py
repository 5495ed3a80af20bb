"""What a settled delivery sends: its reply, the copy that is tried again, its dead letter. Each is confirmed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, final

import attrs
import trio
from structlog.typing import FilteringBoundLogger

from kernel import Envelope, Event
from kernel.abc import Queue
from kernel.errors import ConflictError, EncodeError, QueueFullError, SendError, UnknownOutcomeError, UnroutableError

from ..core import TooLarge
from ..link.channel import OnWritten
from .delays import Kind
from .delivery import AmqpDelivery
from .events import MessageDropped
from .letters import clean, write_dead_letter, write_letter, write_noted, write_retry
from .outbox import Outbox
from .postponing import Postponer
from .topology import takes_all

_PASSING: Final = (QueueFullError, UnknownOutcomeError, UnroutableError)
"""What can be otherwise the next time: there is room, the connection is back, the queue is there."""
_DIRECT: Final = "amq.rabbitmq.reply-to."
"""How the addresses of those begin who have their answers without a queue. Source: RabbitMQ, Direct Reply-to."""
_FULL_WAIT: Final = 1.0
"""Seconds until a message is offered again to a queue that is full."""


@final
@attrs.define(eq=False, repr=False)
class Post:
    """Sends for those who settle.

    Of what the broker may have, `on_written` gets the receipt: what has none, or one that says no, can be sent again.
    """

    component: str
    log: FilteringBoundLogger
    emit: Callable[[Event], None]
    outbox: Outbox
    postponer: Postponer
    redeclare: Callable[[str], Awaitable[bool]]
    """Makes a queue exist again that this service has declared; returns whether it has."""
    delay_queues: Kind
    """What delay queues may be where the target takes everything."""

    async def reply(
        self, reply: Envelope, *, exchange: str, on_written: OnWritten | None = None, once: bool = False
    ) -> None:
        """Send an answer; if nobody can get it, it is dropped, with an event.

        Args:
            reply: The answer.
            exchange: Where it is sent.
            on_written: Gets the receipt.
            once: Whether not to wait for a connection if the one that there is breaks.

        Raises:
            UnknownOutcomeError: if the connection broke before the broker answered.
            UnavailableError: if there is no way to the broker.
            UnansweredError: if the wait for its answer was given up.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            letter = write_letter(reply, now=trio.current_time())
            # To this address RabbitMQ delivers, and returns the message as well.
            is_direct = reply.subject.startswith(_DIRECT)
            await self.outbox.publish(
                letter,
                reply.body,
                exchange=exchange,
                routing_key=reply.subject,
                mandatory=not is_direct,
                on_written=on_written,
                once=once,
            )
        except UnknownOutcomeError:
            raise
        except (SendError, EncodeError, ValueError) as error:
            self.drop(reply, queue=reply.subject, reason=f"no way to answer: {error}")

    async def again(
        self,
        delivery: AmqpDelivery,
        *,
        queue: str,
        after: float,
        spec: Queue | None,
        on_written: OnWritten | None = None,
    ) -> None:
        """Send the copy of a delivery that its queue gets after some seconds.

        Raises:
            EncodeError: if what came together with what we note does not fit into one frame.
            ConflictError, SendError: if this user must not do it.
            UnknownOutcomeError, UnavailableError: as `reply`.

        Cancellation: as `reply`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        body, kind = delivery.event.body, self.delay_kind(spec)
        letter = write_retry(
            delivery.event, delivery.envelope, attempts=delivery.attempt, after=after, now=trio.current_time()
        )
        if after <= 0:
            try:
                await self.outbox.publish(
                    letter, body, exchange="", routing_key=queue, mandatory=True, on_written=on_written
                )
            except QueueFullError:
                after, kind = _FULL_WAIT, "quorum"
            except UnroutableError:
                self.drop(delivery.envelope, queue=queue, reason="its queue is gone")
        if after > 0:
            await self.postponer.publish(
                letter, body, exchange="", routing_key=queue, delay=after, kind=kind, on_written=on_written
            )

    async def note(
        self, delivery: AmqpDelivery, *, queue: str, crashes: int, on_written: OnWritten | None = None
    ) -> None:
        """Send the copy of a delivery that notes how often a process has died with it, to its queue.

        Raises: as `again`, and UnroutableError, QueueFullError if the queue does not take it.

        Cancellation: as `reply`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        letter = write_noted(delivery.event, delivery.envelope, crashes=crashes, now=trio.current_time())
        await self.outbox.publish(
            letter, delivery.event.body, exchange="", routing_key=queue, mandatory=True, on_written=on_written
        )

    async def bury(
        self,
        delivery: AmqpDelivery,
        *,
        queue: str,
        grave: str,
        reason: str,
        on_written: OnWritten | None = None,
    ) -> None:
        """Send the dead letter of a delivery; a queue for it that is gone is made again if it was declared here.

        Raises:
            QueueFullError: if the queue for it is full.
            UnroutableError: if it is gone, and somebody else has to make it.
            EncodeError, SendError, UnknownOutcomeError, UnavailableError: as `again`.

        Cancellation: as `reply`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        letter = write_dead_letter(
            delivery.event, delivery.envelope, reason=reason, queue=queue, attempts=delivery.attempt
        )
        send = partial(
            self.outbox.publish,
            letter,
            delivery.event.body,
            exchange="",
            routing_key=grave,
            mandatory=True,
            on_written=on_written,
        )
        try:
            await send()
        except UnroutableError:
            if not await self.redeclare(grave):  # noqa: ASYNC120  of the two, being cancelled counts
                raise
            await send()

    def refuse(self, event: TooLarge, *, queue: str, is_lost: bool) -> None:
        """Say that a message was too large to be read, and whether nobody has it."""
        self.log.error("a message is larger than max_message_bytes", queue=queue, bytes=event.size, is_lost=is_lost)
        if is_lost:
            self.drop(Envelope(subject=clean(event.routing_key)), queue=queue, reason=f"too large: {event.size} bytes")

    def hold(self, envelope: Envelope, *, queue: str, error: Exception) -> None:
        """Say that an outcome is kept, since it cannot be sent now."""
        self.log.warning("an outcome waits to be sent", queue=queue, delivery_id=envelope.id, error=str(error))

    def surrender(self, envelope: Envelope, *, queue: str, reason: str, error: Exception, is_lost: bool) -> None:
        """Say that the broker has to put a message aside, and whether nobody has it then."""
        self.log.error(
            "an outcome can never be sent: the broker puts the message aside",
            queue=queue,
            delivery_id=envelope.id,
            reason=reason,
            error=str(error),
            is_lost=is_lost,
        )
        if is_lost:
            self.drop(envelope, queue=queue, reason=f"{reason}; and it cannot be put aside: {error}")

    def delay_kind(self, queue: Queue | None) -> Kind:
        """Return what a delay queue has to be in front of a queue; None is one that somebody else declares, or several.

        One of the classic type forgets a message as soon as it has sent it on: a queue that is full would lose it.
        """
        return self.delay_queues if queue is not None and takes_all(queue) else "quorum"

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


def is_hopeless(error: Exception) -> bool:
    """Whether what could not be sent never can be: for its own sake, or for what this user must not do."""
    if isinstance(error, (EncodeError, ConflictError, ValueError)):
        return True
    return isinstance(error, SendError) and not isinstance(error, _PASSING)
