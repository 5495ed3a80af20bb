"""Warnings that a stranger can cause: each is told at once, and its like not again for a while; public through `kernel.abc`."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

import attrs

from .context import Context

PERIOD: Final = 60.0
"""Seconds from one warning to the next of its kind."""
_MAX_KINDS: Final = 100
_MAX_SHOWN: Final = 100


@final
@attrs.define(eq=False, repr=False)
class Seldom:
    """Warns once in `PERIOD` of each kind, and says how many there were since."""

    _context: Context
    _told: OrderedDict[tuple[str, ...], tuple[float, int]] = attrs.field(
        factory=OrderedDict[tuple[str, ...], tuple[float, int]], init=False
    )
    """Kind -> when it was told last, and how many came since; the one that was new longest ago is forgotten first."""

    def warn(self, event: str, **facts: str) -> None:
        """Warn of something; what has the same facts is of one kind."""
        import trio  # noqa: PLC0415  who plans needs none

        kind, now = (event, *facts.values()), trio.current_time()
        at, untold = self._told.get(kind, (now - PERIOD, 0))
        if now - at < PERIOD:
            self._told[kind] = (at, untold + 1)
            return
        self._told[kind] = (now, 0)
        if len(self._told) > _MAX_KINDS:
            self._told.popitem(last=False)
        shown = {name: value[:_MAX_SHOWN] for name, value in facts.items()}
        self._context.log.warning(event, **shown, **({"not_told": untold} if untold else {}))
