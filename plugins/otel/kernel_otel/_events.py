"""What the driver reports besides the logs of the kernel."""

from __future__ import annotations

from typing import final

import attrs

from kernel import Event


@final
@attrs.frozen(kw_only=True)
class SpansLost(Event):
    """Recorded spans are not sent, and will not be."""

    count: int
    """Since the last such event."""
    reason: str
