"""The one place that imports trio-asyncio: when a loop is opened, since it changes asyncio for the whole process."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any, Final

WHY_NOT: Final = (
    "trio-asyncio, which runs asyncio beside trio, cannot be imported on Python 3.14 and later; use Python 3.13"
)


def is_usable() -> bool:
    """Return whether this Python can run asyncio beside trio."""
    return sys.version_info < (3, 14)


def trio_asyncio() -> Any:  # noqa: ANN401  it has no types
    """Return the library.

    Raises:
        ImportError: if it is not there, or this Python cannot run it.
    """
    if not is_usable():
        raise ImportError(WHY_NOT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses what asyncio will take away, which is why there is `is_usable`
        return importlib.import_module("trio_asyncio")
