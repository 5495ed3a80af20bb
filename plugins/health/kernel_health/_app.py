"""The same answers as an ASGI application, to be mounted under a prefix of a `web` dispatcher."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, final

from kernel.abc import Context

from ._config import TruthConfig
from ._truth import answer


@final
class HealthApp:
    """Answers `/live`, `/ready` and `/status` below its prefix.

    It runs in the event loop: it cannot see that this is blocked, and whoever asks waits then. It closes with its
    dispatcher, so that a probe finds nobody from the first moment of a stop on.
    """

    def __init__(self, context: Context, config: TruthConfig = TruthConfig()) -> None:  # noqa: B008  frozen
        self._context: Final = context
        self._config: Final = config

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
        path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
        made = answer(str(scope["method"]), path, self._context.snapshot(), self._config)
        headers = [
            (b"content-type", made.content_type.encode()),
            (b"content-length", str(len(made.body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": made.status.value, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else made.body})
