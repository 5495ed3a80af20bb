"""What became of the messages, as numbers and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import attrs

from kernel import Envelope, Event


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class MessageDropped(Event):
    """A message ended and nobody has it: there was no dead-letter queue for it, or no room, or it was a duplicate."""

    queue: str
    reason: str
    message_id: str
    subject: str


@final
@attrs.frozen(kw_only=True)
class Stats:
    """Counts since the broker opened. A message that goes to two queues counts as two."""

    sent: int = 0
    """Put into a queue by a sender, or as the reply to a delivery."""
    delivered: int = 0
    """Always `acked + returned + retried + dead + unsettled`."""
    acked: int = 0
    returned: int = 0
    retried: int = 0
    dead: int = 0
    """Deliveries settled with `DeadLetter`."""
    expired: int = 0
    """Messages whose time was over before they were delivered."""
    displaced: int = 0
    """Messages that made room for others (`drop_oldest`)."""
    dropped: int = 0
    """Messages that ended nowhere; there is a `MessageDropped` for each."""
    duplicates: int = 0
    """Messages that were not taken since their id was known; there is a `MessageDropped` for each of them too."""

    @property
    def unsettled(self) -> int:
        """Deliveries that are under way."""
        return self.delivered - self.acked - self.returned - self.retried - self.dead


@final
@attrs.define(eq=False, repr=False)
class Ledger:
    """The running counts of one broker."""

    component: str
    emit: Callable[[Event], None]
    sent: int = 0
    delivered: int = 0
    acked: int = 0
    returned: int = 0
    retried: int = 0
    dead: int = 0
    expired: int = 0
    displaced: int = 0
    dropped: int = 0
    duplicates: int = 0

    def snapshot(self) -> Stats:
        """Return the counts as they are."""
        return Stats(**{field.name: getattr(self, field.name) for field in attrs.fields(Stats)})

    def drop(self, envelope: Envelope, *, queue: str, reason: str) -> None:
        """Count a message that ends nowhere and say so."""
        self.dropped += 1
        self._tell(envelope, queue, reason)

    def ignore(self, envelope: Envelope, *, queue: str) -> None:
        """Count a duplicate and say so."""
        self.duplicates += 1
        self._tell(envelope, queue, "duplicate")

    def _tell(self, envelope: Envelope, queue: str, reason: str) -> None:
        self.emit(
            MessageDropped(
                component=self.component,
                queue=queue,
                reason=reason,
                message_id=envelope.id,
                subject=envelope.subject,
            )
        )
