"""Which worker gets what a dispatcher brings in: made of its workers when it is opened, and anew when one is replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .._core.events import EventHub
from .._core.interceptors import Around, Incoming
from .._core.router import Router
from .._core.spec import DispatcherSpec
from .._delivery.attempt import Route
from .._delivery.fan_out import FanOut
from .._delivery.hold import Hold
from .._delivery.judge import Judge
from .._delivery.leash import Attempting
from .._delivery.pipeline import Pipeline
from .._delivery.pool import Pool
from ..abc import Protocol


def attempting(
    spec: DispatcherSpec,
    pools: Mapping[str, Pool],
    protocol: Protocol | None,
    hold: Hold,
    hub: EventHub,
    around: Around[Incoming] | None,
    mask: Callable[[str], str],
) -> Attempting:
    """Return what handles the deliveries of a dispatcher.

    Args:
        spec: Of the dispatcher.
        pools: Of all workers, by name.
        protocol: What it speaks.
        hold: Of its deliveries that wait.
        hub: Where events go.
        around: What handlers are called within.
        mask: Takes secrets out of what becomes known of failures.
    """
    fed = [pools[name] for name in spec.workers]

    def pipeline(some: Sequence[Pool], judge: Judge) -> Pipeline:
        return Pipeline(_router(some), judge, _last_resorts(some, pools), hold, hub, around)

    if spec.fan_out:
        return FanOut([pipeline([pool], Judge(protocol, mask)) for pool in fed])
    return pipeline(fed, Judge(protocol, mask))


def reroute(pipeline: Attempting, spec: DispatcherSpec, pools: Mapping[str, Pool]) -> None:
    """Have what is attempted from now on go to the workers as they are now; what is under way goes on.

    What waits for a worker that was gone, and has come back, goes back to its source.
    """
    fed = [pools[name] for name in spec.workers]
    parts = pipeline.pipelines if isinstance(pipeline, FanOut) else [pipeline]
    for number, part in enumerate(parts):
        if isinstance(part, Pipeline):
            some = [fed[number]] if isinstance(pipeline, FanOut) else fed
            part.router, part.last_resorts = _router(some), _last_resorts(some, pools)
            part.hold.release()


def _router(pools: Sequence[Pool]) -> Router[Route]:
    routes: list[tuple[str, Route]] = [
        (pattern, Route(pool, handler, pool.spec.filter))
        for pool in pools
        for handler in pool.spec.handlers
        for pattern in handler.patterns
    ]
    return Router[Route].of(routes)


def _last_resorts(some: Sequence[Pool], pools: Mapping[str, Pool]) -> dict[str, Route]:
    return {
        pool.name: Route(pools[name], pools[name].spec.handlers[0])
        for pool in some
        if (name := pool.spec.failure_worker) is not None
    }
