"""What the driver reports besides degraded and ready."""

from __future__ import annotations

from typing import final

import attrs

from kernel import Event


@final
@attrs.frozen(kw_only=True)
class Amqp10MessageDropped(Event):
    """A message ended without a queue for dead letters: the broker has dropped it, unless it has a place for those."""

    queue: str
    reason: str
    message_id: str
    subject: str
