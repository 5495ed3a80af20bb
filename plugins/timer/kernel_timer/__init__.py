"""The dispatcher `timer`: calls workers at intervals or by cron."""

from __future__ import annotations

from ._clock import VirtualClock as VirtualClock
from ._config import TimerConfig as TimerConfig
from ._dispatcher import TimerDispatcher as TimerDispatcher
from ._tick import Tick as Tick
from ._tick import TickFailed as TickFailed
from ._tick import TickSkipped as TickSkipped

__all__ = ["Tick", "TickFailed", "TickSkipped", "TimerConfig", "TimerDispatcher", "VirtualClock"]
