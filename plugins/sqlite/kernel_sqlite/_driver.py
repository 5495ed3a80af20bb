"""The driver `sqlite`: opens the file for as long as it lives."""

from __future__ import annotations

import functools
import shlex
import sqlite3
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import ClassVar, Final, final

import trio
from typing_extensions import override

from kernel.abc import Binding, Broker, Capability, Context, Driver, Topology

from ._access import Access
from ._broker import SqliteBroker
from ._clock import Clock, open_clock
from ._config import SqliteConfig
from ._file import create_or_open, exposure_of
from ._mount import remote_file_system
from ._reset_guard import is_affected
from ._sizes import SqliteOptions
from ._store import Store


@asynccontextmanager
async def _while_whole(broker: SqliteBroker, unconsumed_after: float) -> AsyncGenerator[None]:
    """End the body with an error when the file can be used no more, so that the driver is started again."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.wait_broken)
            if unconsumed_after:
                nursery.start_soon(broker.watch_queues, unconsumed_after)
            yield
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__  # of the body: the nursery is not its business


@final
class SqliteDriver(Driver[Broker]):
    """A broker, and a database for workers, in one file. What it holds outlives the process."""

    Config: ClassVar[type[object]] = SqliteConfig
    BrokerOptions: ClassVar[type[object] | None] = SqliteOptions
    provides: ClassVar[type[object]] = SqliteBroker
    capabilities: ClassVar[frozenset[Capability]] = frozenset({
        Capability.ALL_OR_NOTHING,
        Capability.DEAD_LETTERS,
        Capability.DEDUPLICATION,
        Capability.DELAY,
        Capability.DURABLE,
        Capability.MANDATORY,
        Capability.MAX_LENGTH,
        Capability.ORDERING,
        Capability.PEEK,
        Capability.PRIORITY,
        Capability.REQUEST_REPLY,
        Capability.TRANSACTION,
        Capability.TTL,
    })

    def __init__(self, *, config: SqliteConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        assert isinstance(config, SqliteConfig)
        if config.transaction_timeout > config.lease / 2:
            yield "`transaction_timeout` must be at most half of `lease`, which is not renewed during a transaction"

    @classmethod
    @override
    def remains(cls, config: object, topology: Topology) -> Iterable[str]:
        assert isinstance(config, SqliteConfig)
        at = f"--file {shlex.quote(config.path)}"

        def unbind(one: Binding) -> str:
            words = " ".join(map(shlex.quote, (one.queue, one.exchange, one.pattern)))
            return f"`kernel queue unbind {words} {at}` ends it"

        return topology.staying(
            delete=lambda name: f"`kernel queue delete {shlex.quote(name)} {at}` ends it", unbind=unbind
        )

    @override
    def open(self) -> AbstractAsyncContextManager[SqliteBroker]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[SqliteBroker]:
        async with open_clock() as clock:
            # Not abandoned when cancelled: it ends within a second or so, and leaves nothing behind.
            access = await trio.to_thread.run_sync(self._open_file, clock)
            self._warn(access.path)
            broker = SqliteBroker(access, self._context)
            broker.start(poll_interval=self._config.poll_interval, transaction_timeout=self._config.transaction_timeout)
            try:
                async with _while_whole(broker, self._config.unconsumed_after):
                    yield broker
            finally:
                with trio.move_on_after(self._context.stop_timeout / 2, shield=True):
                    await broker.aclose()

    def _warn(self, path: Path) -> None:
        """Tell what is allowed and can cost messages, or secrets."""
        if exposure := exposure_of(path):
            self._context.log.warning(exposure)
        if is_affected():
            told = "SQLite has the WAL-reset bug: commits of this plugin are kept apart by a lock beside the file"
            self._context.log.info(told, version=sqlite3.sqlite_version)
        if remote := remote_file_system(path):
            told = f'"{path}" lies on a network file system ({remote}), where locks do not work: messages can be lost'
            self._context.log.warning(told)

    def _open_file(self, clock: Clock) -> Access:
        path = self._context.path(self._config.path).absolute()  # the process may go to another folder
        make_store = functools.partial(self._make_store, clock)
        access = Access(path, self._config.synchronous, self._config.busy_timeout, make_store, clock)
        access.use(create_or_open(path, synchronous=self._config.synchronous))
        return access

    def _make_store(self, clock: Clock, connection: sqlite3.Connection) -> Store:
        return Store(
            connection,
            clock=clock.wall,
            lease=self._config.lease,
            max_length=self._config.max_length,
            once_retention=self._config.once_retention,
        )
