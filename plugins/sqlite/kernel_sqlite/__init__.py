"""Driver `sqlite` for kernel: a durable broker, and a database for workers, in one file."""

from __future__ import annotations

from ._broker import SqliteBroker as SqliteBroker
from ._config import SqliteConfig as SqliteConfig
from ._driver import SqliteDriver as SqliteDriver
from ._events import MessageDropped as MessageDropped
from ._events import QueueUnconsumed as QueueUnconsumed
from ._sizes import SqliteOptions as SqliteOptions
