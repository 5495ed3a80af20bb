"""Dispatcher web for kernel: ASGI applications over HTTP/1.1, HTTP/2 and websockets, on trio."""

from __future__ import annotations

from ._config import CertificateConfig as CertificateConfig
from ._config import OpenApiConfig as OpenApiConfig
from ._config import TlsConfig as TlsConfig
from ._config import WebConfig as WebConfig
from ._config import WebOptions as WebOptions
from ._dispatcher import WebDispatcher as WebDispatcher
from .asgi.events import RequestDone as RequestDone
from .asgi.events import SlotsTaken as SlotsTaken
from .asgi.events import ThreadsTaken as ThreadsTaken

__all__ = [
    "CertificateConfig",
    "OpenApiConfig",
    "RequestDone",
    "SlotsTaken",
    "ThreadsTaken",
    "TlsConfig",
    "WebConfig",
    "WebDispatcher",
    "WebOptions",
]
