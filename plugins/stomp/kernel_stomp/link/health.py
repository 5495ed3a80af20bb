"""What ails the driver, put together from its connections: degraded while anything does."""

from __future__ import annotations

from typing import final

import attrs

from kernel.abc import Context


@final
@attrs.define(eq=False, repr=False)
class Health:
    """The complaints of the parts; the context is told when the first comes, when they change, and when all are over."""

    _context: Context
    _complaints: dict[str, str] = attrs.field(factory=dict[str, str], init=False)

    def complain(self, part: str, text: str) -> None:
        """Say what ails a part."""
        if self._complaints.get(part) != text:
            self._complaints[part] = text
            self._tell()

    def warn(self, text: str) -> None:
        """Say in the log what keeps the driver from starting."""
        self._context.log.warning(text)

    def recover(self, part: str) -> None:
        """Say that a part works well."""
        if self._complaints.pop(part, None) is not None:
            self._tell()

    def _tell(self) -> None:
        if self._complaints:
            self._context.report_degraded("; ".join(dict.fromkeys(self._complaints.values())))
        else:
            self._context.report_ready()
