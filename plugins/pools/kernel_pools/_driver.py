"""The drivers: a pool for as long as one lives."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, final

import trio
from typing_extensions import override

from kernel.abc import Complaints, Context, Driver

from ._children import Children
from ._config import ProcessPoolConfig, ThreadPoolConfig
from ._places import Places
from ._processes import ProcessPool
from ._threads import ThreadPool


@final
class ThreadPoolDriver(Driver[ThreadPool]):
    """Calls plain handlers in threads: those of workers with `runs_in` and the name of this driver."""

    Config: ClassVar[type[object]] = ThreadPoolConfig
    provides: ClassVar[type[object]] = ThreadPool

    def __init__(self, *, config: ThreadPoolConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @override
    def open(self) -> AbstractAsyncContextManager[ThreadPool]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[ThreadPool]:
        await trio.lowlevel.checkpoint()
        places = Places(self._config.threads, self._config.finish == "running")
        self._context.report_usage(places.usage)
        yield ThreadPool(self._context, places, trio.CapacityLimiter(self._config.threads))


@final
class ProcessPoolDriver(Driver[ProcessPool]):
    """Calls plain handlers in processes: those of workers with `runs_in` and the name of this driver."""

    Config: ClassVar[type[object]] = ProcessPoolConfig
    provides: ClassVar[type[object]] = ProcessPool

    def __init__(self, *, config: ProcessPoolConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @override
    def open(self) -> AbstractAsyncContextManager[ProcessPool]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[ProcessPool]:
        await trio.lowlevel.checkpoint()
        places = Places(self._config.processes, self._config.finish == "running")
        self._context.report_usage(places.usage)
        async with _within() as nursery:
            children = Children(self._context, self._config, nursery, Complaints(self._context))
            nursery.start_soon(children.bury)
            try:
                yield ProcessPool(self._context, places, children)
            finally:
                await children.aclose(self._context.stop_timeout / 2)  # noqa: ASYNC102  it shields itself


@asynccontextmanager
async def _within() -> AsyncGenerator[trio.Nursery]:
    """Open a nursery that ends with the body; what the body raises comes out as it is."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__  # the nursery is none of its business
