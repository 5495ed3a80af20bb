"""The driver `redis`: a client of Redis, on trio."""

from __future__ import annotations

from ._client import RedisClient as RedisClient
from ._config import RedisConfig as RedisConfig
from ._driver import RedisDriver as RedisDriver

__all__ = ["RedisClient", "RedisConfig", "RedisDriver"]
