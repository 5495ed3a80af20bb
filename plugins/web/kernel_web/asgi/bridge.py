"""An application that needs asyncio runs over a bridge: what another plugin offers under an entry point of its own.

The entry point is `asyncio` in the group `kernel.bridges`, and names a function that takes an ASGI application and
returns an async context manager. That yields an ASGI application for trio, which calls the other in an event loop of
asyncio that runs meanwhile: its lifespan, its requests, and its tasks, which end before the context does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import EntryPoint, entry_points
from typing import Final, TypeAlias

from kernel.errors import StartupError

from .._application import Application

GROUP: Final = "kernel.bridges"
NAME: Final = "asyncio"
MISSING: Final = "asyncio = true needs a bridge, and none is installed: install the plugin asyncio"
Bridge: TypeAlias = Callable[[Application], AbstractAsyncContextManager[Application]]


def find_bridge() -> EntryPoint | None:
    """Return the bridge that is installed, None if none is."""
    return next(iter(entry_points(group=GROUP, name=NAME)), None)


def bridged(app: Application) -> AbstractAsyncContextManager[Application]:
    """Return what runs an application in asyncio, and yields one to call from trio.

    Raises:
        StartupError: if no bridge is installed, or it cannot be imported.
    """
    found = find_bridge()
    if found is None:
        raise StartupError(MISSING)
    try:
        bridge: Bridge = found.load()
    except Exception as error:  # whatever a module raises when it is imported
        raise StartupError(f"the bridge {found.value} cannot be imported: {error}") from error
    return bridge(app)
