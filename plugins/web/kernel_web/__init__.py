"""Dispatcher web for kernel: ASGI applications over HTTP/1.1, HTTP/2 and websockets, on trio."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from ._config import CertificateConfig as CertificateConfig
from ._config import OpenApiConfig as OpenApiConfig
from ._config import TlsConfig as TlsConfig
from ._config import WebConfig as WebConfig
from ._config import WebOptions as WebOptions
from ._dispatcher import WebDispatcher as WebDispatcher

if TYPE_CHECKING:
    from .asgi.events import LinesMissed as LinesMissed
    from .asgi.events import RequestDone as RequestDone
    from .asgi.events import SlotsTaken as SlotsTaken
    from .asgi.events import ThreadsTaken as ThreadsTaken

__all__ = [
    "CertificateConfig",
    "LinesMissed",
    "OpenApiConfig",
    "RequestDone",
    "SlotsTaken",
    "ThreadsTaken",
    "TlsConfig",
    "WebConfig",
    "WebDispatcher",
    "WebOptions",
]

_LATER: Final = {"LinesMissed", "RequestDone", "SlotsTaken", "ThreadsTaken"}
"""Imported when asked for: see `_dispatcher`."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(".asgi.events", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
