"""What the broker reports besides the logs of the kernel."""

from __future__ import annotations

from typing import final

import attrs

from kernel import Event


@final
@attrs.frozen(kw_only=True)
class MessageDropped(Event):
    """A message ended and nobody has it: there was no dead-letter queue for it, or no room."""

    queue: str
    reason: str
    message_id: str
    subject: str


@final
@attrs.frozen(kw_only=True)
class QueueUnconsumed(Event):
    """A queue is bound, so that it fills, and no process has consumed it for long."""

    queue: str
    seconds: float
    """Since somebody was last seen to consume it."""
    waiting: int
    limit: int
    """Messages; at so many, sends to it fail or drop the oldest."""
