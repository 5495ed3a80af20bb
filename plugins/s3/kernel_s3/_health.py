"""Whether the service is there, as its last answers say."""

from __future__ import annotations

from typing import final

import attrs

from kernel.abc import Context


@final
@attrs.define(eq=False, repr=False)
class Health:
    """Degraded from the first request that could not be made to the next that could."""

    _context: Context
    _is_well: bool = attrs.field(default=True, init=False)

    def note(self, error: Exception | None) -> None:
        """Note how a request ended."""
        if error is not None:
            self._context.report_degraded(str(error))
        elif not self._is_well:
            self._context.report_ready()
        self._is_well = error is None
