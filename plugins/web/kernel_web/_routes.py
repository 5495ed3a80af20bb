"""Which worker serves a path: the longest prefix wins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import attrs

from kernel.abc import Target
from kernel.errors import StartupError

from ._config import WebOptions


@final
@attrs.frozen
class Route:
    """A worker and what its application is told of the path that led there."""

    target: Target
    worker: str
    root_path: str
    """The prefix without its last slash: ASGI's `root_path`; `path` stays whole, as in Starlette's `Mount`."""


@final
@attrs.define(eq=False)
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


def build_routes(targets: Sequence[Target]) -> Routes:
    """Return the table of a dispatcher's workers.

    Raises:
        StartupError: if two of them have the same prefix.
    """
    found: dict[str, Route] = {}
    for target in targets:
        prefix = target.options.prefix if isinstance(target.options, WebOptions) else "/"
        root = prefix.rstrip("/")
        if root in found:
            raise StartupError(f'worker/{found[root].worker} and worker/{target.name} both have the prefix "{prefix}"')
        found[root] = Route(target, target.name, root)
    return Routes(sorted(found.values(), key=lambda route: len(route.root_path), reverse=True))
