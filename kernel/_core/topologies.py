"""What dispatchers need at a broker, as a plan tells it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from .components import Candidate
from .spec import AnySpec, DispatcherSpec, Plan, WorkerSpec

if TYPE_CHECKING:
    from .broker import Topology


def topologies(plan: Plan, driver: str) -> Iterator[Topology]:
    """Yield what the dispatchers of a service have declared at a broker, its driver being named by its id."""
    for spec in plan.components.values():
        if isinstance(spec, DispatcherSpec) and spec.driver == driver:
            inner = plan.service_of(spec.id)
            yield from topologies_of(spec, plan.components, service=plan.name if inner is None else inner.service)


def topologies_of(spec: DispatcherSpec, components: Mapping[str, AnySpec], *, service: str) -> Iterator[Topology]:
    """Yield what a dispatcher needs: by its own configuration, and because of the workers that it feeds.

    Args:
        spec: Of the dispatcher.
        components: By id; its workers are among them.
        service: What the service that it belongs to is called.
    """
    workers = [worker for name in spec.workers if isinstance(worker := components[f"worker/{name}"], WorkerSpec)]
    candidates = {
        worker.name.rpartition("/")[2]: Candidate(worker=worker.use, options=worker.options) for worker in workers
    }
    found = (spec.cls.topology(spec.config), spec.cls.worker_topology(spec.config, candidates, service=service))
    yield from (topology for topology in found if topology is not None)
