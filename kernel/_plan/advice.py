"""What drivers say of how they are configured, and of what the dispatchers that use them ask for."""

from __future__ import annotations

from ..abc import Topology
from .ground import Ground, Wired, Wiring


def ask_drivers(ground: Ground, wiring: Wiring) -> None:
    """Let each driver judge its configuration and what it is to declare: report what cannot be, warn of the rest."""
    for name, wired in wiring.drivers.items():
        _ask_driver(ground, wiring, name, wired)


def _ask_driver(ground: Ground, wiring: Wiring, name: str, wired: Wired) -> None:
    cls = wiring.driver_class(name)
    if cls is None or wired.config is None:
        return
    topologies: list[Topology] = []
    for user, one in wiring.dispatchers.items():
        topology = _topology_of(wiring, user, one) if one.driver == name else None
        if topology is not None:
            topologies.append(topology)
            for text in cls.check_topology(wired.config, topology):
                ground.report(one.entry.at, text)
    if name in (ground.lent or {}):
        return  # what is said of it is told where it is configured
    for text in cls.advise(wired.config, topologies):
        ground.warn(wired.entry.at, text)


def _topology_of(wiring: Wiring, name: str, wired: Wired) -> Topology | None:
    cls = wiring.dispatcher_class(name)
    return None if cls is None or wired.config is None else cls.topology(wired.config)
