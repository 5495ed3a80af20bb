"""What a reload leaves at brokers: queues and bindings that the old plan asked for, and the new one does not. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .._core.changes import Changes, same
from .._core.spec import DriverSpec, Plan
from .._core.topologies import topologies
from ..abc import Capability, Topology


def leftovers(old: Plan, new: Plan, found: Changes) -> Mapping[str, Topology]:
    """Return what stays at each broker although no dispatcher of the new plan asks for it, by the id of its driver.

    What is neither kept by the broker nor by a driver that goes on is left out: it is gone.
    """
    down = {*found.restarted, *found.removed}
    drivers = [spec for spec in old.components.values() if isinstance(spec, DriverSpec)]
    kept = [one for one in drivers if one.id not in down or Capability.DURABLE in one.cls.capabilities_of(one.config)]
    left = {one.id: _given_up(old, new, one) for one in kept}
    return {id_: one for id_, one in left.items() if one.queues or one.bindings}


def foretold(old: Plan, new: Plan, found: Changes) -> list[str]:
    """Return the same in words, with how to end it, as each driver knows it."""
    return [
        f"{id_}: {text}" for id_, topology in leftovers(old, new, found).items() for text in remains(old, id_, topology)
    ]


def remains(plan: Plan, driver: str, topology: Topology) -> list[str]:
    """Return what a driver says of what stays at its broker."""
    spec = plan.components[driver]
    return list(spec.cls.remains(spec.config, topology)) if isinstance(spec, DriverSpec) else []


def _given_up(old: Plan, new: Plan, spec: DriverSpec) -> Topology:
    asked = list(topologies(old, spec.id))
    wanted = [topology for id_ in _at_same_broker(new, spec) for topology in topologies(new, id_)]
    names = {queue.name for topology in wanted for queue in topology.queues}
    bindings = {binding for topology in wanted for binding in topology.bindings}
    # Nobody consumes dead letters, and nothing is bound to their queue: it does not fill by being forgotten.
    names |= {queue.dead_letters for topology in asked for queue in topology.queues}
    return Topology(
        queues=[queue for topology in asked for queue in topology.queues if queue.name not in names],
        bindings=[binding for topology in asked for binding in topology.bindings if binding not in bindings],
    )


def _at_same_broker(plan: Plan, spec: DriverSpec) -> Iterator[str]:
    """Yield the ids of the drivers that are that one, or like it under another name."""
    drivers = [other for other in plan.components.values() if isinstance(other, DriverSpec) and other.cls is spec.cls]
    yield from (other.id for other in drivers if other.id == spec.id or same(other.config, spec.config))
