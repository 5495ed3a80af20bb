"""The drivers `thread_pool` and `process_pool`: where plain handlers run that block, or take the CPU.

What takes long to load is loaded when it is first used: every process of a pool imports this package, and needs next to nothing of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from ._config import ProcessPoolConfig as ProcessPoolConfig
from ._config import ThreadPoolConfig as ThreadPoolConfig
from ._remaining import remaining as remaining

if TYPE_CHECKING:
    from ._driver import ProcessPoolDriver as ProcessPoolDriver
    from ._driver import ThreadPoolDriver as ThreadPoolDriver
    from ._errors import NotSerializableError as NotSerializableError
    from ._errors import ProcessDiedError as ProcessDiedError
    from ._events import PlainCallDone as PlainCallDone
    from ._processes import ProcessPool as ProcessPool
    from ._threads import ThreadPool as ThreadPool

_LATER: Final = {
    "NotSerializableError": "_errors",
    "PlainCallDone": "_events",
    "ProcessDiedError": "_errors",
    "ProcessPool": "_processes",
    "ProcessPoolDriver": "_driver",
    "ThreadPool": "_threads",
    "ThreadPoolDriver": "_driver",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
