"""The dispatcher `health`: probes on a port of their own, answered by a thread; and notifications for systemd."""

from __future__ import annotations

from ._app import HealthApp as HealthApp
from ._config import HealthConfig as HealthConfig
from ._config import TruthConfig as TruthConfig
from ._dispatcher import HealthDispatcher as HealthDispatcher

__all__ = ["HealthApp", "HealthConfig", "HealthDispatcher", "TruthConfig"]
