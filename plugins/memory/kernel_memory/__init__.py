"""Driver `memory` for kernel: a broker inside the process, and the smallest template of one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from ._broker import MemoryBroker as MemoryBroker
from ._driver import MemoryConfig as MemoryConfig
from ._driver import MemoryDriver as MemoryDriver

if TYPE_CHECKING:
    from ._ledger import MessageDropped as MessageDropped
    from ._ledger import Stats as Stats

_LATER: Final = {"MessageDropped": "._ledger", "Stats": "._ledger"}
"""Imported when asked for: see `MemoryDriver.preload`."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_LATER[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
