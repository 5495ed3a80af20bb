"""Routers of FastAPI: each becomes an application of its own, whose worker may restart alone, and all have one document.

FastAPI is imported when the first of them comes, and is no dependency: whoever has a router has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, final

from kernel.errors import StartupError

from .._application import Application
from .._config import OpenApiConfig

NONE: Final = 0
PARTIAL: Final = 1
"""The path is served, the method is not."""
FULL: Final = 2


@final
class Routing:
    """A router, and the application that serves it alone."""

    __slots__ = ("_routes", "app", "router")

    def __init__(self, router: Any) -> None:  # noqa: ANN401  an APIRouter
        """Build the application.

        Raises:
            StartupError: if FastAPI says no.
        """
        self.router = router
        joined = _joined([("", router)])
        self.app: Application = _bared(joined)
        self._routes: Sequence[Any] = joined.router.routes

    def match(self, path: str, method: str) -> int:
        """Return how far it serves a path: `FULL`, `PARTIAL` or `NONE`.

        Args:
            path: From the worker's prefix on.
            method: Of a request; empty for a websocket.
        """
        kind = "http" if method else "websocket"
        scope: dict[str, Any] = {
            "type": kind,
            "method": method,
            "path": path,
            "root_path": "",
            "headers": [],
            "query_string": b"",
        }
        best = NONE
        for route in self._routes:
            best = max(best, route.matches(scope)[0].value)
            if best == FULL:
                break
        return best


def _joined(routers: Sequence[tuple[str, Any]]) -> Any:  # noqa: ANN401  a FastAPI
    from fastapi import FastAPI  # noqa: PLC0415  optional, see above
    from fastapi.exceptions import FastAPIError  # noqa: PLC0415

    app = FastAPI(openapi_url=None)
    try:
        for prefix, router in routers:
            app.include_router(router, prefix=prefix)
    except (FastAPIError, AssertionError) as error:
        raise StartupError(f"FastAPI does not take the router: {error}") from error
    return app


def _bared(app: Any) -> Any:  # noqa: ANN401  a FastAPI
    """Return an application without what makes a 500 of every error: the dispatcher knows those that are a 503."""
    from starlette.middleware.errors import ServerErrorMiddleware  # noqa: PLC0415  optional, see above

    stack = app.build_middleware_stack()
    app.middleware_stack = stack.app if isinstance(stack, ServerErrorMiddleware) else stack
    return app


def build_document(config: OpenApiConfig, routers: Sequence[tuple[str, Any]], root_path: str) -> dict[str, Any]:
    """Return the OpenAPI document of routers, each with the prefix of its worker."""
    from fastapi.openapi.utils import get_openapi  # noqa: PLC0415  optional, see above

    return get_openapi(
        title=config.title,
        version=config.version,
        description=config.description or None,
        routes=_joined(routers).routes,
        servers=[{"url": root_path}] if root_path else None,
    )


def build_docs(config: OpenApiConfig, root_path: str) -> bytes:
    """Return the page that shows the document."""
    from fastapi.openapi.docs import get_swagger_ui_html  # noqa: PLC0415  optional, see above

    return bytes(get_swagger_ui_html(openapi_url=root_path + config.path, title=config.title).body)
