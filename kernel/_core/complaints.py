"""What ails a component that has several parts, such as connections; public through `kernel.abc`."""

from __future__ import annotations

from typing import final

import attrs

from .context import Context


@final
@attrs.define(eq=False, repr=False)
class Complaints:
    """The complaints of the parts of one component, put together: it is degraded while any part has one."""

    _context: Context
    _texts: dict[str, str] = attrs.field(factory=dict[str, str], init=False)
    """By part."""

    def complain(self, part: str, text: str) -> None:
        """Say what ails a part, which has one complaint at a time: the last."""
        if self._texts.get(part) != text:
            self._texts[part] = text
            self._tell()

    def warn(self, part: str, text: str) -> None:
        """Say, also in the log, what keeps a part from starting: nobody is told of a component that has not started."""
        self._context.log.warning(text)
        self.complain(part, text)

    def recover(self, part: str) -> None:
        """Say that a part works well."""
        if self._texts.pop(part, None) is not None:
            self._tell()

    def _tell(self) -> None:
        if self._texts:
            self._context.report_degraded("; ".join(dict.fromkeys(self._texts.values())))
        else:
            self._context.report_ready()
