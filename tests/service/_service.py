"""Ten drivers of which each tells when it is opened and closed, and functions that want some of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

import attrs
import trio

from kernel.abc import Context, Driver
from kernel.errors import StartupError

HAPPENED: list[str] = []
"""What the drivers did, in order."""


class Store:
    """The resource of a driver."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.broken = trio.Event()


@attrs.frozen(kw_only=True)
class TellingConfig:
    fails: bool = False


class Telling(Driver[Store]):
    Config = TellingConfig
    provides: ClassVar[type[object]] = Store

    def __init__(self, config: TellingConfig, context: Context) -> None:
        self.config = config
        self.name = context.name

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        await trio.lowlevel.checkpoint()
        if self.config.fails:
            raise StartupError(f"{self.name} is not there")
        HAPPENED.append(f"open {self.name}")
        store = Store(self.name)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._break, store)
                yield store
                nursery.cancel_scope.cancel()
        finally:
            HAPPENED.append(f"close {self.name}")

    async def _break(self, store: Store) -> None:
        await store.broken.wait()
        raise OSError(f"{self.name} broke")
