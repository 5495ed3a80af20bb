"""structlog, without what it imports only to draw tracebacks in colour, and to know greenlets.

Where rich is installed, and with the kernel it is, that is a tenth of a second and six megabytes of every service, which
draws no tracebacks: one record is one line. A program that has imported structlog before keeps it as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

_OPTIONAL: Final = ("rich", "better_exceptions", "greenlet")


@contextmanager
def lean() -> Generator[None]:
    """While inside, what structlog can do without is not to be imported; what has been imported already stays."""
    hidden = [name for name in _OPTIONAL if not {name, "structlog"} & sys.modules.keys()]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None has an import fail, as if it were not there
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
