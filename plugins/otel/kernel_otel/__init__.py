"""The driver `otel`: traces of handlers, messages, calls and requests, by OpenTelemetry."""

from __future__ import annotations

from ._config import OtelConfig as OtelConfig
from ._driver import OtelDriver as OtelDriver
from ._events import SpansLost as SpansLost

__all__ = ["OtelConfig", "OtelDriver", "SpansLost"]
