"""The drivers: a pool for as long as one lives."""

from __future__ import annotations

import functools
import logging
import multiprocessing
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import ClassVar, Final, final

import trio
import trio_parallel  # pyright: ignore[reportMissingTypeStubs]  it has none
from typing_extensions import override

from kernel.abc import Context, Driver

from . import _child
from ._config import ProcessPoolConfig, ThreadPoolConfig
from ._places import Places
from ._processes import ProcessPool, open_processes
from ._threads import ThreadPool

_LOOK: Final = 1.0
"""Seconds between two looks for processes that ended while nobody waited for them: until then they are zombies."""


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
        processes = open_processes(
            idle_timeout=self._config.idle_timeout,
            init=functools.partial(_child.begin, self._config.environment, logging.getLogger().level),
            retire=functools.partial(_child.is_used_up, self._config.max_tasks_per_child),
            grace_period=self._context.stop_timeout / 2,
        )
        places = Places(self._config.processes, self._config.finish == "running")
        self._context.report_usage(places.usage)
        # What it raises at the end says that a process had died before, or had to be killed: both are done with.
        with suppress(trio_parallel.BrokenWorkerError):
            async with processes as context, _burying():
                yield ProcessPool(self._context, places, context)


@asynccontextmanager
async def _burying() -> AsyncGenerator[None]:
    """Take note of processes that have ended, while inside; what the body raises comes out as it is."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_bury)
            yield
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__  # the nursery is none of its business


async def _bury() -> None:
    while True:
        await trio.sleep(_LOOK)
        multiprocessing.active_children()
