"""The driver: sets up the SDK, hears what fails, and sends the last reports when all has closed."""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, final

from typing_extensions import override

from kernel.abc import Context, Driver, Losses
from kernel.errors import StartupError

from ._config import SentryConfig, is_dsn
from ._events import ReportsLost

_FLUSH_SHARE: Final = 0.6
"""Of `stop_timeout`, in which the last reports may be sent."""

_NONE: Final = "http://key@localhost/1"
"""What stands for no variable, which is none."""


@final
class SentryDriver(Driver[None]):
    """Reports failures. Workers use `sentry_sdk` as everywhere; they need nothing of this driver."""

    Config: ClassVar[type[object]] = SentryConfig
    provides: ClassVar[type[object]] = type(None)
    surrounds: ClassVar[bool] = True

    def __init__(self, *, config: SentryConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        assert isinstance(config, SentryConfig)
        if config.dsn is not None and not is_dsn(config.dsn.reveal()):
            yield "dsn must be as Sentry shows it: https://KEY@HOST/PROJECT"

    @classmethod
    @override
    def preload(cls) -> None:
        importlib.import_module("._reporting", __package__)

    @override
    def open(self) -> AbstractAsyncContextManager[None]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None]:
        import trio  # noqa: PLC0415  `kernel check` imports this module, and runs nothing

        from ._reporting import Reporting, close, start  # noqa: PLC0415  as above
        from ._sending import Quiet, transport_for  # noqa: PLC0415  as above

        await trio.lowlevel.checkpoint()
        if self._config.dsn is None and not is_dsn(os.environ.get("SENTRY_DSN") or _NONE):
            raise StartupError(f"{self._context.id}: SENTRY_DSN must be as Sentry shows it: https://KEY@HOST/PROJECT")
        losses, quiet = Losses(self._context, "reports", self._lost), Quiet()
        client = start(self._config, self._context, transport_for(losses, quiet))
        quiet.begin()
        try:
            with Reporting(self._context, client, retries=self._config.retries).hearing():
                yield
        finally:
            seconds = self._context.stop_timeout * _FLUSH_SHARE
            # A thread sends; who is not there to take it must not hold up the end.
            with trio.move_on_after(seconds, shield=True):
                await trio.to_thread.run_sync(close, client, seconds, abandon_on_cancel=True)
            if losses.finish(f"the stop waits {seconds:g} s for Sentry, and it had not taken them"):
                quiet.end()

    def _lost(self, count: int, reason: str) -> ReportsLost:
        return ReportsLost(component=self._context.id, count=count, reason=reason)
