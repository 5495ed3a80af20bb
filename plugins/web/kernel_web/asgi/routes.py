"""Which worker serves a path: the longest prefix wins, and among routers with one prefix the first that has a route."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast, final

import attrs
import trio

from kernel.abc import Target
from kernel.errors import UnavailableError

from .._config import WebConfig, WebOptions
from .document import Document
from .routers import FULL, PARTIAL, Routing

if TYPE_CHECKING:
    from .lifespan import Hosted


@final
@attrs.define(eq=False, repr=False)
class Route:
    """A worker and what its application is told of the path that led there."""

    target: Target
    worker: str
    root_path: str
    """The prefix without its last slash: ASGI's `root_path`; `path` stays whole, as in Starlette's `Mount`."""
    timeout: float
    """Seconds that its application may take for a request; 0 sets no limit."""
    max_body_bytes: int
    places: trio.CapacityLimiter | None = None
    """For requests that its application works on; None sets no limit."""
    worker_id: str = attrs.field(init=False)
    """`worker/name`; empty for what is no worker's."""
    _seen: Hosted | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.worker_id = f"worker/{self.worker}" if self.worker else ""

    def routing(self) -> Routing | None:
        """Return what its worker's router serves; None if it has none, or none is known.

        What an instance served that is over is looked for in another.
        """
        if self._seen is None or self._seen.is_over:
            try:
                self._seen = cast("Hosted", self.target.hosted())
            except UnavailableError:
                return None
        return self._seen.routing

    @property
    def is_known(self) -> bool:
        """Whether `routing` says all there is to say."""
        return self._seen is not None and not self._seen.is_over


@final
@attrs.frozen(repr=False)
class Crossing:
    """Workers that bring routers and have one prefix."""

    root_path: str
    routes: Sequence[Route]
    """In the order of the manifest."""

    def choose(self, path: str, method: str) -> Route:
        """Return the route for a path; empty is the method of a websocket.

        Where nobody serves it, one that is not ready is asked, since it might; else the first, which says no.
        """
        rest = path[len(self.root_path) :]
        other = rest[:-1] if rest.endswith("/") else f"{rest}/"  # its application sends the client there
        for wanted in (rest, other):
            found = self._first(wanted, method)
            if found is not None:
                return found
        return next((route for route in self.routes if not route.is_known), self.routes[0])

    def _first(self, path: str, method: str) -> Route | None:
        partial = None
        for route in self.routes:
            routing = route.routing()
            match = routing.match(path, method) if routing is not None else 0
            if match == FULL:
                return route
            if match == PARTIAL and partial is None:
                partial = route
        return partial


_ENDS: Final = frozenset({"", "/"})


@final
@attrs.define(eq=False, repr=False)
class Routes:
    """The table."""

    _entries: Sequence[Route | Crossing]
    """Longest prefix first."""
    _config: WebConfig
    _own: dict[str, Route] = attrs.field(factory=dict[str, Route], init=False)
    """What the dispatcher serves by itself, if there are routers: paths that are whole."""
    _only: Route | None = attrs.field(default=None, init=False)
    """The one that serves every path, where there is no other."""

    def __attrs_post_init__(self) -> None:
        first = self._entries[0] if len(self._entries) == 1 else None
        self._only = first if isinstance(first, Route) and not first.root_path else None
        own = Route(Document(self._config, self.known_routers), "", "", 0.0, 0)
        openapi, taken = self._config.openapi, {entry.root_path for entry in self._entries}
        paths = (openapi.path, openapi.docs if openapi.path else "")
        self._own.update({path: own for path in paths if path and path not in taken})

    def find(self, path: str, method: str) -> Route | None:
        """Return the route of a decoded path, or None; empty is the method of a websocket."""
        if self._own and method and (own := self._own.get(path)) is not None and self.known_routers():
            return own
        if self._only is not None and path[:1] == "/":
            return self._only
        for entry in self._entries:
            root = entry.root_path
            if path.startswith(root) and path[len(root) : len(root) + 1] in _ENDS and path:
                return entry if isinstance(entry, Route) else entry.choose(path, method)
        return None

    def known_routers(self) -> list[tuple[str, Routing]]:
        """Return what the routers of all workers serve that are, or have been, ready; each with its prefix."""
        routes = itertools.chain.from_iterable(
            [entry] if isinstance(entry, Route) else entry.routes for entry in reversed(self._entries)
        )
        found = ((route.root_path, route.routing()) for route in routes)
        return [(root, routing) for root, routing in found if routing is not None]


def build_routes(targets: Sequence[Target], config: WebConfig) -> Routes:
    """Return the table of a dispatcher's workers; those that have one prefix bring routers, the plan has seen to it."""
    groups: dict[str, list[Route]] = {}
    for target in targets:
        route = _route(target, target.options, config)
        groups.setdefault(route.root_path, []).append(route)
    entries = [routes[0] if len(routes) == 1 else Crossing(root, routes) for root, routes in groups.items()]
    return Routes(sorted(entries, key=lambda entry: len(entry.root_path), reverse=True), config)


def _route(target: Target, options: object, config: WebConfig) -> Route:
    chosen = options if isinstance(options, WebOptions) else WebOptions()
    return Route(
        target,
        target.name,
        chosen.prefix.rstrip("/"),
        config.request_timeout if chosen.request_timeout is None else chosen.request_timeout,
        config.max_body_bytes if chosen.max_body_bytes is None else chosen.max_body_bytes,
        trio.CapacityLimiter(chosen.concurrency) if chosen.concurrency else None,
    )
