"""The same metrics as an ASGI application, to be mounted under a prefix of a `web` dispatcher."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self, final

import trio

from kernel.abc import Context

from ._config import MetricsConfig
from ._families import offer, scraped
from ._metrics import Metrics


@final
class MetricsApp:
    """Answers scrapes at its prefix. It counts from its own start on, and closes with its dispatcher."""

    def __init__(self, context: Context, config: MetricsConfig = MetricsConfig()) -> None:  # noqa: B008  frozen
        self._metrics: Final = Metrics(context, config)
        self._counting: Final = ExitStack()

    async def __aenter__(self) -> Self:
        """Count."""
        await trio.lowlevel.checkpoint()
        self._counting.enter_context(self._metrics.counting())
        self._counting.callback(offer(self._metrics))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Count no more."""
        self._counting.close()  # noqa: ASYNC910  an exit that waits could be cancelled, and there is nothing to wait for

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer one request, as ASGI has it."""
        del receive
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])  # as ASGI wants it of an application without a lifespan
        accept = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"), "")
        body, content_type = await scraped(self._metrics, accept)
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
