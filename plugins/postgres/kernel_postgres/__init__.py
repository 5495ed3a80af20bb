"""The driver `postgres`: PostgreSQL through psycopg, natively on trio."""

from __future__ import annotations

from ._config import PostgresConfig as PostgresConfig
from ._connection import TrioConnection as TrioConnection
from ._database import Database as Database
from ._driver import PostgresDriver as PostgresDriver
from ._events import OutboxFailed as OutboxFailed
from ._events import PoolMeasured as PoolMeasured
from ._relay import OutboxRelay as OutboxRelay
from ._relay import RelayConfig as RelayConfig
from ._transaction import DatabaseTransaction as DatabaseTransaction

__all__ = [
    "Database",
    "DatabaseTransaction",
    "OutboxFailed",
    "OutboxRelay",
    "PoolMeasured",
    "PostgresConfig",
    "PostgresDriver",
    "RelayConfig",
    "TrioConnection",
]
