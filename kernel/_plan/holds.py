"""Whether workers may hold deliveries for longer than their source waits for an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .ground import Ground, Wiring
from .staff import Hired


def warn_of_holds(ground: Ground, wiring: Wiring, workers: Mapping[str, Hired]) -> None:
    """Say where a delivery may be taken for lost while it only waits, or while it is handled."""
    for worker in workers.values():
        limit, driver, is_ordered = _source_of(wiring, worker)
        for path, seconds in _holds(worker, is_ordered=is_ordered):
            if seconds >= limit:
                text = (
                    f"a delivery may be held for {seconds:g} s, and driver/{driver} takes it for lost after {limit:g} s"
                )
                ground.warn((*worker.entry.at, *path), f"{text}: it is delivered again meanwhile")


def _source_of(wiring: Wiring, worker: Hired) -> tuple[float, str, bool]:
    """Return how long a delivery may be held, the driver that says so, and whether what waits keeps its place."""
    wired = wiring.dispatchers.get(worker.dispatcher or "")
    cls = wiring.dispatcher_class(worker.dispatcher)
    driver = wiring.driver_class(wired.driver) if wired is not None else None
    if wired is None or cls is None or driver is None or wired.driver is None or wired.config is None:
        return float("inf"), "", False
    topology, config = cls.topology(wired.config), wiring.drivers[wired.driver].config
    is_ordered = topology is not None and any(queue.partition_by for queue in topology.queues)
    return driver.hold_limit(config) if config is not None else float("inf"), wired.driver, is_ordered


def _holds(worker: Hired, *, is_ordered: bool) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield for how long a worker holds a delivery, with the key that says so."""
    table = worker.table
    yield ("timeout",), table.timeout
    if table.kill_switch is not None:
        yield ("kill_switch", "pause"), table.kill_switch.pause + table.timeout
    if is_ordered and table.retry.waits:  # a retry waits here, so that its key waits with it
        yield ("retry", "backoff_max"), table.retry.backoff_max
