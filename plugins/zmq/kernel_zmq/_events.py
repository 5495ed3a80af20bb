"""What ZeroMQ components tell of."""

from __future__ import annotations

from typing import final

import attrs

from kernel import Event


@final
@attrs.frozen(kw_only=True)
class MessageLost(Event):
    """A message is gone for good that had come in: nothing behind a socket keeps it."""

    subject: str
    id: str
    reason: str
