"""The driver `mongo`: a client of pymongo in a loop of asyncio, for as long as both live."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final, final

import trio
from typing_extensions import override

from kernel import Secret
from kernel.abc import Context, Driver, Executor
from kernel.errors import StartupError, UnavailableError

from ._collection import Database, Mongo
from ._config import IndexTable, MongoConfig, problems
from ._errors import shortened

if TYPE_CHECKING:
    from ._pools import Pools

_LOGIN_FAILED: Final = frozenset({13, 18, 8000})
"""Codes of `Unauthorized`, `AuthenticationFailed` and Atlas's own. Source: MongoDB, error codes."""


@final
class MongoDriver(Driver[Mongo]):
    """Gives workers a `Mongo`."""

    Config: ClassVar[type[object]] = MongoConfig
    provides: ClassVar[type[object]] = Mongo
    needs: ClassVar[type[object] | None] = Executor

    def __init__(self, *, config: MongoConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        assert isinstance(config, MongoConfig)
        return problems(config)

    @classmethod
    @override
    def preload(cls) -> None:
        _library()

    @override
    def open(self) -> AbstractAsyncContextManager[Mongo]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Mongo]:
        executor = self._context.driver
        if not isinstance(executor, Executor) or not executor.calls_async:
            raise StartupError(f'{self._context.id} needs a driver with plugin = "asyncio" as its driver')
        pools = _pools(self._config)
        client = await trio.to_thread.run_sync(self._client, pools)
        mongo = Mongo(client[self._config.database], self._context.id, executor, self._config.batch)
        try:
            await self._prepare(mongo)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, mongo)
                self._context.report_usage(lambda: pools.usage(mongo.calls))
                yield mongo
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) != 1:
                raise
            raise group.exceptions[0] from group.exceptions[0].__cause__  # the nursery is none of its business
        finally:
            with trio.move_on_after(self._context.stop_timeout / 2, shield=True):
                await mongo.run(_close)

    def _client(self, pools: Pools) -> Any:  # noqa: ANN401  pymongo's, of a module that is imported when it is needed
        config, path = self._config, self._context.path
        options: dict[str, Any] = {
            "appname": self._context.service,
            "connect": False,
            "event_listeners": [pools],
            "maxPoolSize": config.pool_max,
            "minPoolSize": config.pool_min,
            "connectTimeoutMS": int(config.connect_timeout * 1000),
            "serverSelectionTimeoutMS": int(config.connect_timeout * 1000),
            "socketTimeoutMS": int(config.timeout * 1000),
        }
        if config.password is not None:
            options |= {"username": config.username, "password": config.password.reveal()}
        if config.ca or config.certificate:
            options["tls"] = True
        for name, file in (("tlsCAFile", config.ca), ("tlsCertificateKeyFile", config.certificate)):
            if file:
                options[name] = str(path(file))
        dsn = config.dsn.reveal() if isinstance(config.dsn, Secret) else config.dsn
        try:
            return _library().AsyncMongoClient(dsn, **options)
        except (OSError, ValueError, _errors().PyMongoError) as error:
            raise StartupError(f"{self._context.id}: the client cannot be made: {shortened(error)}") from error

    async def _prepare(self, mongo: Mongo) -> None:
        try:
            await mongo.run(_ping)
            for index in self._config.indexes:
                await mongo.run(_make_index, index)
        except _errors().OperationFailure as error:
            if error.code in _LOGIN_FAILED:
                raise StartupError(f"{self._context.id}: the server does not let us in: {shortened(error)}") from error
            raise StartupError(f"{self._context.id}: {shortened(error)}") from error

    async def _watch(self, mongo: Mongo) -> None:
        """Tell when no server answers, and when one does again."""
        is_well, interval = True, self._config.check_interval
        while True:
            await trio.sleep(interval)
            reason = ""
            try:
                with trio.fail_after(interval):
                    await mongo.run(_ping)
            except UnavailableError as error:
                reason = str(error)
            except trio.TooSlowError:
                reason = f"the server does not answer within check_interval = {interval:g} s"
            except _errors().PyMongoError as error:
                reason = shortened(error)
            if reason and is_well:
                self._context.report_degraded(reason)
            elif not reason and not is_well:
                self._context.report_ready()
            is_well = not reason


async def _ping(database: Database) -> None:  # noqa: ASYNC910  of asyncio, which has no checkpoints
    await database.client.admin.command("ping")


async def _close(database: Database) -> None:  # noqa: ASYNC910  as above
    await database.client.close()


async def _make_index(database: Database, index: IndexTable) -> None:  # noqa: ASYNC910  as above
    options: dict[str, Any] = {}
    if index.name:
        options["name"] = index.name
    if index.unique:
        options["unique"] = True
    if index.sparse:
        options["sparse"] = True
    if index.expire_after is not None:
        options["expireAfterSeconds"] = int(index.expire_after)
    await database[index.collection].create_index(list(index.keys.items()), **options)


def _pools(config: MongoConfig) -> Pools:
    from ._pools import Pools  # noqa: PLC0415  it imports pymongo

    return Pools(config.pool_max)


def _library() -> Any:  # noqa: ANN401  heavy: `kernel check` needs none of it
    return importlib.import_module("pymongo")


def _errors() -> Any:  # noqa: ANN401  as above
    return importlib.import_module("pymongo.errors")
