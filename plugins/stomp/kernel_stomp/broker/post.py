"""What a settled delivery sends: its reply, the copy that is tried again, its dead letter. Each is confirmed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, final

import attrs
import trio
from structlog.typing import FilteringBoundLogger

from kernel import Envelope, Event, Outcome
from kernel.abc import DEADLINE_HEADER, CrashNote, death_headers
from kernel.errors import EncodeError, SendError, UnknownOutcomeError

from ..core import Frame
from ..link.link import OnWritten
from .delivery import StompDelivery
from .events import MessageDropped
from .letters import ATTEMPTS, Letter, number_of, read_letter
from .outbox import Outbox

_PASSING: Final = (UnknownOutcomeError,)
"""What can be otherwise the next time."""


@final
@attrs.define(eq=False, repr=False)
class Post:
    """Reads and sends for those who settle. Each method may be called again where it is not certain that it sent."""

    component: str
    log: FilteringBoundLogger
    emit: Callable[[Event], None]
    outbox: Outbox

    def read(self, frame: Frame, *, queue: str) -> Letter:
        """Return what a message means that came from a queue."""
        dialect, headers = self.outbox.dialect, frame.headers
        death = dialect.death_of(headers, queue=queue)
        letter = read_letter(
            frame,
            id_=dialect.id_of(headers),
            reply_to=dialect.reply_to_of(headers) if "reply-to" in headers else "",
            subject=dialect.subject_of,
            now=trio.current_time() if DEADLINE_HEADER in headers else 0.0,  # nothing else is counted from it
        )
        return letter if death is None else _dead(letter, reason=death[0], queue=death[1])

    async def reply(self, reply: Envelope, *, exchange: str = "", on_written: OnWritten | None = None) -> None:
        """Send an answer; if nobody can get it, it is dropped, with an event where that is known.

        Raises:
            UnknownOutcomeError: if the connection broke before the server answered.
            UnavailableError: if there is no way to the server.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            await self.outbox.send(self.outbox.frame(reply, exchange=exchange), on_written=on_written)
        except UnknownOutcomeError:
            raise
        except (SendError, EncodeError, ValueError) as error:
            self.drop(reply, queue=reply.subject, reason=f"no way to answer: {error}")

    def holds(self, delay: float) -> bool:
        """Return whether the server itself holds a message back."""
        return self.outbox.dialect.holds(delay) is not None

    def copy(self, delivery: StompDelivery, *, queue: str, after: float) -> Frame:
        """Return the copy of a delivery that its queue gets after some seconds.

        Raises:
            EncodeError: if it cannot be written.
        """
        envelope = attrs.evolve(delivery.envelope, delay=after)
        frame = self.outbox.frame(envelope, exchange="", attempts=delivery.attempt, after=after)
        held = self.outbox.dialect.holds(after) if after > 0 else None
        frame = self.outbox.to_queue(frame, queue)
        return frame if held is None else Frame(frame.command, {**frame.headers, **held}, frame.body)

    def noted(self, delivery: StompDelivery, *, queue: str, note: CrashNote) -> Frame:
        """Return the copy of a delivery that notes how often a process has died with it.

        Raises:
            EncodeError: if it cannot be written.
        """
        counted = number_of(delivery.frame.headers, ATTEMPTS)
        envelope = attrs.evolve(delivery.envelope, delay=0.0)
        frame = self.outbox.to_queue(self.outbox.frame(envelope, exchange="", attempts=counted), queue)
        return Frame(
            frame.command,
            {**frame.headers, **{name: str(number) for name, number in note.headers().items()}},
            frame.body,
        )

    def id_of(self, frame: Frame) -> Hashable:
        """Return by what a message is known when it comes again."""
        return self.outbox.dialect.id_of(frame.headers) or hash(frame.body)

    def dead_letter(self, delivery: StompDelivery, *, queue: str, grave: str, reason: str) -> Frame:
        """Return the dead letter of a delivery. It has no deadline, and no attempts behind it.

        Raises:
            EncodeError: if it cannot be written.
        """
        envelope = delivery.envelope
        headers = death_headers(envelope, reason=reason, queue=queue, attempts=delivery.attempt)
        dead = attrs.evolve(envelope, headers=headers, deadline=float("inf"), delay=0.0)
        return self.outbox.to_queue(self.outbox.frame(dead, exchange=""), grave)

    async def send(self, frame: Frame, *, on_written: OnWritten) -> None:
        """Send a copy. Raises and Cancellation: as `Outbox.send`."""
        await self.outbox.send(frame, on_written=on_written)

    async def postpone(self, frame: Frame, *, queue: str, after: float, on_written: OnWritten) -> None:
        """Send a copy that its queue gets later. Raises and Cancellation: as `Outbox.postpone`."""
        await self.outbox.postpone(frame, delay=after, target=queue, on_written=on_written)

    def refuse(self, frame: Frame, *, queue: str) -> None:
        """Say that a message cannot be read, or was too large for it."""
        if frame.flaw:
            self.log.error("a message cannot be read: the server puts it aside", queue=queue, reason=frame.flaw)
            return
        self.log.error("a message is larger than max_message_bytes", queue=queue, bytes=frame.skipped)

    def hold(self, envelope: Envelope, *, queue: str, error: Exception) -> None:
        """Say that an outcome is kept, since it cannot be sent now."""
        self.log.warning("an outcome waits to be sent", queue=queue, delivery_id=envelope.id, error=str(error))

    def surrender(self, envelope: Envelope, *, queue: str, outcome: Outcome, error: Exception) -> None:
        """Say that the server has to put a message aside."""
        self.log.error(
            "an outcome can never be sent: the server puts the message aside",
            queue=queue,
            delivery_id=envelope.id,
            outcome=type(outcome).__name__,
            error=str(error),
        )

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
    if isinstance(error, (EncodeError, ValueError)):
        return True
    return isinstance(error, SendError) and not isinstance(error, _PASSING)


def _dead(letter: Letter, *, reason: str, queue: str) -> Letter:
    """Return a letter that the server has put aside, as if we had."""
    told = death_headers(letter.envelope, reason=reason, queue=queue, attempts=letter.attempts)
    return Letter(envelope=attrs.evolve(letter.envelope, headers=told, deadline=float("inf")), attempts=0)
