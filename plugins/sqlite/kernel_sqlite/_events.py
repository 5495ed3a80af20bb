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
