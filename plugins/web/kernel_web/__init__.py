"""Dispatcher web for kernel: ASGI applications on hypercorn and trio."""

from __future__ import annotations

from ._config import TlsConfig as TlsConfig
from ._config import WebConfig as WebConfig
from ._config import WebOptions as WebOptions
from ._dispatcher import WebDispatcher as WebDispatcher

__all__ = ["TlsConfig", "WebConfig", "WebDispatcher", "WebOptions"]
