"""The table of a driver with `plugin = "asyncio"`."""

from __future__ import annotations

from typing import final

import attrs
from attrs.validators import and_, ge, gt, le


@final
@attrs.frozen(kw_only=True)
class AsyncioConfig:
    """An event loop of asyncio."""

    tasks: int = attrs.field(default=100, validator=and_(ge(1), le(10_000)))
    """Tasks that make the calls, each one after the other; further calls wait."""
    cancel_timeout: float = attrs.field(default=1.0, validator=and_(gt(0.0), le(86_400.0)))
    """Seconds that a cancelled call has to end; after them, nobody waits for it."""
