"""What the driver reports besides degraded and ready."""

from __future__ import annotations

from typing import final

import attrs

from kernel import Event


@final
@attrs.frozen(kw_only=True)
class MessageDropped(Event):
    """A message ended and nobody has it: there was no dead-letter queue for it, or nobody for a reply."""

    queue: str
    reason: str
    message_id: str
    subject: str
