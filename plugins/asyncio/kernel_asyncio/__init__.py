"""The driver `asyncio`: what is written for asyncio, in an event loop of its own beside trio's."""

from __future__ import annotations

from ._bridge import bridged as bridged
from ._config import AsyncioConfig as AsyncioConfig
from ._driver import AsyncioDriver as AsyncioDriver
from ._events import AsyncioTaskFailed as AsyncioTaskFailed
from ._loop import AsyncioLoop as AsyncioLoop

__all__ = ["AsyncioConfig", "AsyncioDriver", "AsyncioLoop", "AsyncioTaskFailed", "bridged"]
