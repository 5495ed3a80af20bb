"""Driver classes made for a test: one that offers a given object, one whose resource fails as scripted."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast, final

import attrs
import trio
from typing_extensions import override

from ..abc import Broker, Capability, Context, Driver
from ..errors import StartupError
from ._faulty import faulty

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from ._faults import Faults


def given_driver(resource: object) -> type[Driver[object]]:
    """Return a driver class whose resource is the given object, which may stand for one of any type.

    A broker is known to be one that can do everything.
    """
    is_broker = isinstance(resource, Broker)

    @final
    @attrs.frozen(kw_only=True, eq=False)
    class Given(Driver[object]):
        provides = type(resource) if is_broker else object
        capabilities = frozenset(Capability) if is_broker else frozenset[Capability]()

        config: object
        context: Context

        @override
        @asynccontextmanager
        async def open(self) -> AsyncGenerator[object]:
            await trio.lowlevel.checkpoint()
            yield resource

    return Given


def faulty_driver(cls: type[Driver[object]], faults: Faults, name: str) -> type[Driver[object]]:
    """Return a driver class like another one, but the calls of its resource go through the script of `faults`."""

    @final
    class Scripted(Driver[object]):
        def __init__(self, config: object, context: Context) -> None:
            self._inner = cast("Callable[..., Driver[object]]", cls)(config=config, context=context)

        @override
        @asynccontextmanager
        async def open(self) -> AsyncGenerator[object]:
            async with self._inner.open() as resource:
                try:
                    stand_in = faulty(resource, faults, name)
                except ValueError as error:
                    raise StartupError(f"a fault that cannot be applied: {error}") from error  # no restart helps
                yield stand_in

    return Scripted
