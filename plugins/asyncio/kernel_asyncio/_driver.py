"""The driver `asyncio`: a loop for as long as it lives."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, final

from typing_extensions import override

from kernel.abc import Context, Driver

from ._config import AsyncioConfig
from ._events import AsyncioTaskFailed
from ._library import WHY_NOT, is_usable, trio_asyncio
from ._loop import AsyncioLoop, open_loop


@final
class AsyncioDriver(Driver[AsyncioLoop]):
    """Gives workers an `AsyncioLoop`, and calls the handlers of those that name it with `runs_in`."""

    Config: ClassVar[type[object]] = AsyncioConfig
    provides: ClassVar[type[object]] = AsyncioLoop

    def __init__(self, *, config: AsyncioConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        if not is_usable():
            yield WHY_NOT

    @classmethod
    @override
    def preload(cls) -> None:
        trio_asyncio()

    @override
    def open(self) -> AbstractAsyncContextManager[AsyncioLoop]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[AsyncioLoop]:
        async with open_loop(
            tasks=self._config.tasks,
            cancel_timeout=self._config.cancel_timeout,
            exit_timeout=self._context.stop_timeout / 2,
            on_error=self._tell,
        ) as loop:
            self._context.report_usage(loop.usage)
            yield loop

    def _tell(self, message: str, error: BaseException | None) -> None:
        text = "" if error is None else f"{type(error).__name__}: {error}"
        self._context.log.error("asyncio_task_failed", message=message, error=text)
        self._context.emit(AsyncioTaskFailed(component=self._context.id, message=message, error=text))
