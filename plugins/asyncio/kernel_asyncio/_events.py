"""What the driver reports besides the logs of the kernel."""

from __future__ import annotations

from typing import final

import attrs

from kernel import Event


@final
@attrs.frozen(kw_only=True)
class AsyncioTaskFailed(Event):
    """Something failed in asyncio that nobody waits for, such as a task of a library. The loop goes on."""

    message: str
    """What asyncio says of it."""
    error: str
    """Class and text of the exception; empty if there is none."""
