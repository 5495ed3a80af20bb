"""An ASGI application that needs asyncio, as one for trio: the bridge that the plugin `web` looks for."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

from ._library import trio_asyncio
from ._loop import open_loop

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_TASKS: Final = 1000
"""Requests at a time, and the lifespan; further ones wait. The dispatcher's `concurrency` is the bound that one sets."""
_CANCEL_TIMEOUT: Final = 1.0
_EXIT_TIMEOUT: Final = 0.5
"""Seconds for tasks that an application leaves behind; those of a dispatcher are few."""


@asynccontextmanager
async def bridged(app: Application) -> AsyncGenerator[Application]:
    """Run an application in a loop of asyncio while inside; yields one to be called from trio.

    Its requests are calls of that loop: one that is cancelled gets a `CancelledError`.

    Raises:
        ImportError: if this Python cannot run asyncio beside trio.

    Cancellation: Is a checkpoint.
    """
    library = trio_asyncio()
    async with open_loop(
        tasks=_TASKS, cancel_timeout=_CANCEL_TIMEOUT, exit_timeout=_EXIT_TIMEOUT, on_error=_tell
    ) as loop:

        async def call(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            await loop.run(app, scope, library.trio_as_aio(receive), library.trio_as_aio(send))

        yield call


def _tell(message: str, error: BaseException | None) -> None:
    logging.getLogger(__name__).error("in asyncio: %s", message, exc_info=error)
