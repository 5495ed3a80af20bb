"""Driver `memory` for kernel: a broker inside the process, and the smallest template of one."""

from __future__ import annotations

from ._broker import MemoryBroker as MemoryBroker
from ._driver import MemoryConfig as MemoryConfig
from ._driver import MemoryDriver as MemoryDriver
from ._ledger import MessageDropped as MessageDropped
from ._ledger import Stats as Stats
