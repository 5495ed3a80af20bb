"""The driver `external`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, cast, final

import trio
from typing_extensions import override

from kernel.abc import Context, Driver
from kernel.errors import StartupError

from ._contract import Contract
from ._external import External, ExternalConfig


@final
class ExternalDriver(Driver[External]):
    """Gives workers an `External`. Degraded while its kill switch refuses calls."""

    Config: ClassVar[type[object]] = ExternalConfig
    provides: ClassVar[type[object]] = External

    def __init__(self, *, config: ExternalConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        try:
            _contract_of(cast("ExternalConfig", config))
        except TypeError as error:
            yield f"`contract`: {error}"

    @override
    def open(self) -> AbstractAsyncContextManager[External]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[External]:
        await trio.lowlevel.checkpoint()
        try:
            contract = _contract_of(self._config)
        except TypeError as error:
            raise StartupError(f"{self._context.id}: {error}") from error
        yield External(self._config, contract, self._context.name, self._report)

    def _report(self, reason: str) -> None:
        if reason:
            self._context.report_degraded(reason)
        else:
            self._context.report_ready()


def _contract_of(config: ExternalConfig) -> Contract:
    return Contract.of(config.contract or config.target)
