"""The driver `postgres`: a pool of connections for as long as it lives."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, Final, final

import trio
from psycopg.conninfo import conninfo_to_dict
from typing_extensions import override

from kernel.abc import Context, Driver
from kernel.errors import StartupError, UnavailableError

from ._config import PostgresConfig, problems, revealed
from ._connection import TrioConnection, connect
from ._database import Database
from ._pool import Pool

_FOR_GOOD: Final = re.compile(
    r"password authentication failed|no password supplied|role \".*\" does not exist|database \".*\" does not exist"
    r"|no pg_hba\.conf entry|certificate verify failed|server certificate for|root certificate file .* does not exist"
    r"|does not support SSL|invalid (?:sslmode|connection option|URI)"
)
"""What libpq and the server say, in English, of what no second attempt changes; in another language it is tried again."""

_THREADS: Final = 2
"""That compute for connections which are being opened: more would take processors from the service."""


@asynccontextmanager
async def _beside(tasks: Iterable[Callable[[], Awaitable[None]]]) -> AsyncGenerator[None]:
    """Run tasks while inside; what the body raises comes out as it is."""
    try:
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)
            yield
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__  # the nursery is none of its business


@final
class PostgresDriver(Driver[Database]):
    """Gives workers a `Database`."""

    Config: ClassVar[type[object]] = PostgresConfig
    provides: ClassVar[type[object]] = Database

    def __init__(self, *, config: PostgresConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context
        self._steps: Final = trio.CapacityLimiter(_THREADS)

    @classmethod
    @override
    def reads(cls, config: object) -> Iterable[str]:
        assert isinstance(config, PostgresConfig)
        return (config.sslrootcert, config.sslcert, config.sslkey)

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        assert isinstance(config, PostgresConfig)
        return problems(config)

    @override
    def open(self) -> AbstractAsyncContextManager[Database]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Database]:
        pool = Pool(self._config, self._context, self._connect)
        database = Database(pool, self._config, self._connect)
        try:
            await self._prepare(pool, database)
            self._context.report_usage(pool.usage)
            upkeep = [pool.keep, pool.measure, *([database.forget] if self._config.outbox else [])]
            async with _beside(upkeep):
                yield database
        finally:
            pool.close()

    async def _prepare(self, pool: Pool, database: Database) -> None:
        try:
            await pool.fill()
            if self._config.outbox:
                await database.prepare()
        except UnavailableError as error:
            if _FOR_GOOD.search(str(error)):
                raise StartupError(str(error)) from error
            raise

    async def _connect(self) -> TrioConnection:
        return await connect(self._params(), steps=self._steps)

    def _params(self) -> dict[str, Any]:
        """Return the words of libpq."""
        config, params = self._config, conninfo_to_dict(revealed(self._config.dsn))
        if config.password is not None:
            params["password"] = config.password.reveal()
        for name in ("sslrootcert", "sslcert", "sslkey"):
            if value := getattr(config, name):
                params[name] = value if value == "system" else str(self._context.path(value))
        if config.sslmode or config.sslrootcert:
            params["sslmode"] = config.sslmode or "verify-full"
        params.setdefault("application_name", self._context.service)
        return params
