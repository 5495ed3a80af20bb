"""The same answers as an ASGI application, to be mounted under a prefix of a `web` dispatcher."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Final, Self, final

import trio

from kernel.abc import Context

from ._config import TruthConfig
from ._together import answer_of_all, truth_of_one
from ._truth import Answer, answer


@final
class HealthApp:
    """Answers `/live`, `/ready` and `/status` below its prefix.

    It runs in the event loop: it cannot see that this is blocked, and whoever asks waits then. It closes with its
    dispatcher, so that a probe finds nobody from the first moment of a stop on.
    """

    def __init__(self, context: Context, config: TruthConfig = TruthConfig()) -> None:  # noqa: B008  frozen
        self._context: Final = context
        self._config: Final = config
        self._withdraw: Callable[[], object] = bool

    async def __aenter__(self) -> Self:
        """Tell the other processes of the service, if there are any."""
        await trio.lowlevel.checkpoint()
        self._withdraw = self._context.crew.offer(self._context.id, lambda: truth_of_one(self._context, self._config))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Tell them no more."""
        self._withdraw()  # noqa: ASYNC910  an exit that waits could be cancelled, and there is nothing to wait for

    async def _answer(self, method: str, path: str) -> Answer:
        if self._context.crew.size == 1:
            await trio.lowlevel.checkpoint()
            return answer(method, path, self._context.snapshot(), self._config)
        return await trio.to_thread.run_sync(answer_of_all, method, path, self._context, self._config)

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
        made = await self._answer(str(scope["method"]), path)
        headers = [
            (b"content-type", made.content_type.encode()),
            (b"content-length", str(len(made.body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": made.status.value, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else made.body})
