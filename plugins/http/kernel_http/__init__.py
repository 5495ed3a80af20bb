"""The driver `http`: clients of HTTP services."""

from __future__ import annotations

from ._config import HttpConfig as HttpConfig
from ._driver import HttpDriver as HttpDriver
from ._events import HttpRequestDone as HttpRequestDone
from ._transport import ResponseTooLargeError as ResponseTooLargeError

__all__ = ["HttpConfig", "HttpDriver", "HttpRequestDone", "ResponseTooLargeError"]
