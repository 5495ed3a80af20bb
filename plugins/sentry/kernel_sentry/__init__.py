"""The driver `sentry`: reports what failed to Sentry, with the component and the delivery or request."""

from __future__ import annotations

from ._config import SentryConfig as SentryConfig
from ._driver import SentryDriver as SentryDriver
from ._events import ReportsLost as ReportsLost

__all__ = ["ReportsLost", "SentryConfig", "SentryDriver"]
