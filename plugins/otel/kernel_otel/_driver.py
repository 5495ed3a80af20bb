"""The driver: builds the provider of tracers, hears what happens, and sends the last spans when all has closed."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, Final, final

from typing_extensions import override

from kernel.abc import Context, Driver, Losses

from ._config import OtelConfig
from ._events import SpansLost

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_FLUSH_SHARE: Final = 0.6
"""Of `stop_timeout`, in which the last spans may be sent."""


@final
class OtelDriver(Driver[object]):
    """Traces a service; its resource is the provider of tracers, for workers that make spans of their own."""

    Config: ClassVar[type[object]] = OtelConfig
    surrounds: ClassVar[bool] = True

    def __init__(self, *, config: OtelConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def preload(cls) -> None:
        importlib.import_module("._provider", __package__)
        importlib.import_module("._tracing", __package__)

    @override
    def open(self) -> AbstractAsyncContextManager[TracerProvider]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[TracerProvider]:
        import trio  # noqa: PLC0415  `kernel check` imports this module, and runs nothing

        from ._provider import bound_of, provider_for  # noqa: PLC0415  as above
        from ._sending import Hush  # noqa: PLC0415  as above
        from ._tracing import Tracing  # noqa: PLC0415  as above

        await trio.lowlevel.checkpoint()
        losses, hush = Losses(self._context, "spans", self._lost), Hush()
        provider = provider_for(self._config, self._context, losses, hush)
        hush.begin()
        try:
            tracing = Tracing(self._context, provider.backlog, bound_of(provider.sampler))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(provider.backlog.run)
                with tracing.hearing():
                    yield provider
                nursery.cancel_scope.cancel()
        finally:
            seconds = self._context.stop_timeout * _FLUSH_SHARE
            # A thread sends; who is not there to take it must not hold up the end.
            with trio.move_on_after(seconds, shield=True):
                await trio.to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)
            if losses.finish(
                f"the stop waits {seconds:g} s for the collector, which had not taken them{hush.so_far()}"
            ):
                hush.end()

    def _lost(self, count: int, reason: str) -> SpansLost:
        return SpansLost(component=self._context.id, count=count, reason=reason)
