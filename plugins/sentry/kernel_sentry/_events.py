"""What the driver tells the service besides the logs of the kernel."""

from __future__ import annotations

from typing import final

import attrs

from kernel import Event


@final
@attrs.frozen(kw_only=True)
class ReportsLost(Event):
    """Reports did not get to Sentry, and will not."""

    count: int
    """Since the last such event."""
    reason: str
