"""Which worker serves a path: the longest prefix wins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import attrs

from kernel.abc import Target

from .._config import WebConfig, WebOptions


@final
@attrs.frozen(repr=False)
class Route:
    """A worker and what its application is told of the path that led there."""

    target: Target
    worker: str
    root_path: str
    """The prefix without its last slash: ASGI's `root_path`; `path` stays whole, as in Starlette's `Mount`."""
    timeout: float
    """Seconds that its application may take for a request; 0 sets no limit."""
    max_body_bytes: int


@final
@attrs.define(eq=False, repr=False)
class Routes:
    """The table."""

    _routes: Sequence[Route]
    """Longest prefix first."""

    def find(self, path: str) -> Route | None:
        """Return the route of a decoded path, or None."""
        for route in self._routes:
            root = route.root_path
            if path.startswith(root) and path[len(root) : len(root) + 1] in {"", "/"} and path:
                return route
        return None


def build_routes(targets: Sequence[Target], config: WebConfig) -> Routes:
    """Return the table of a dispatcher's workers, whose prefixes differ: the plan has seen to it."""
    routes = [_route(target, target.options, config) for target in targets]
    return Routes(sorted(routes, key=lambda route: len(route.root_path), reverse=True))


def _route(target: Target, options: object, config: WebConfig) -> Route:
    chosen = options if isinstance(options, WebOptions) else WebOptions()
    return Route(
        target,
        target.name,
        chosen.prefix.rstrip("/"),
        config.request_timeout if chosen.request_timeout is None else chosen.request_timeout,
        config.max_body_bytes if chosen.max_body_bytes is None else chosen.max_body_bytes,
    )
