"""What the driver and the relay report besides the logs of the kernel."""

from __future__ import annotations

from typing import final

import attrs

from kernel import Event


@final
@attrs.frozen(kw_only=True)
class PoolMeasured(Event):
    """How a pool of connections is used; counts go from the start of the driver."""

    size: int
    """Connections that are open."""
    idle: int
    waiting: int
    """Tasks that wait for a connection."""
    taken: int
    """How often a connection was."""
    opened: int
    closed: int
    waited: float
    """Seconds that tasks have waited for a connection, all together."""


@final
@attrs.frozen(kw_only=True)
class OutboxFailed(Event):
    """A message of the outbox was not taken by the broker; it is tried again."""

    message_id: str
    subject: str
    attempts: int
    reason: str
