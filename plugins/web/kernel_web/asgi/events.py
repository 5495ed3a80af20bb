"""What a dispatcher tells besides the kernel's own events."""

from __future__ import annotations

from typing import final

import attrs

from kernel import Event


@final
@attrs.frozen(kw_only=True)
class SlotsTaken(Event):
    """Every slot of the dispatcher is taken, so that requests wait. Told once, until they no longer have to."""

    slots: int
    """How many there are: `concurrency`."""
