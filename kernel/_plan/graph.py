"""What stands on what: start order, cycles, dependents and the longest way through a stop; pure.

Edges map an id to the ids that it stands on: those are started before it and stopped after it. Ids come in the order
of the manifest, and wherever the edges leave a choice that order decides.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from .._core.spec import ComponentSpec, StopBudget, Wait

Edges: TypeAlias = Mapping[str, Sequence[str]]

FLUSH: Final = 1.0
"""Seconds that the last events may take to reach their receivers, after everything has stopped."""


def edges_of(specs: Mapping[str, ComponentSpec]) -> dict[str, tuple[str, ...]]:
    """Return what each component stands on: all that it uses or comes after."""
    return {id_: tuple(dict.fromkeys(spec.uses + spec.after)) for id_, spec in specs.items()}


def start_order(edges: Edges) -> list[str]:
    """Return all ids, each behind those it stands on; whoever is part of a cycle or stands on one is left out."""
    return list(_start_order(edges))


def _start_order(edges: Edges) -> Iterator[str]:
    names = list(edges)
    place = {name: number for number, name in enumerate(names)}
    waits_for = {name: len(set(edges[name])) for name in names}
    users = reverse(edges)
    ready = [number for number, name in enumerate(names) if not waits_for[name]]
    while ready:
        name = names[heapq.heappop(ready)]
        yield name
        for user in users[name]:
            waits_for[user] -= 1
            if not waits_for[user]:
                heapq.heappush(ready, place[user])


def reverse(edges: Edges) -> dict[str, list[str]]:
    """Return who stands directly on each id."""
    users: dict[str, list[str]] = {name: [] for name in edges}
    for name, below in edges.items():
        for other in dict.fromkeys(below):
            users[other].append(name)
    return users


def find_cycles(edges: Edges) -> list[list[str]]:
    """Return cycles that have no id in common, at least one wherever there are any.

    Each begins with the id that comes first in the manifest, and each id in it stands on the next one.
    """
    cycles: list[list[str]] = []
    place = {name: number for number, name in enumerate(edges)}
    left = _tangled(edges)
    while left:
        cycle = _walk_into_a_cycle(left)
        start = cycle.index(min(cycle, key=place.__getitem__))
        cycles.append(cycle[start:] + cycle[:start])
        left = _tangled(_without(left, set(cycle)))
    return cycles


def _tangled(edges: Edges) -> dict[str, list[str]]:
    started = set(_start_order(edges))
    return _without(edges, started)


def _without(edges: Edges, gone: set[str]) -> dict[str, list[str]]:
    return {name: [other for other in below if other not in gone] for name, below in edges.items() if name not in gone}


def _walk_into_a_cycle(tangled: Edges) -> list[str]:
    # Whatever could not be started stands on something else that could not: the walk ends where it has been before.
    way: dict[str, None] = {}
    name = next(iter(tangled))
    while name not in way:
        way[name] = None
        name = tangled[name][0]
    steps = list(way)
    return steps[steps.index(name) :]


def dependents(edges: Edges, names: Iterable[str]) -> list[str]:
    """Return all that stand on any of the names, directly or not, and the names themselves, in the order of `edges`."""
    users = reverse(edges)
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += users[name]
    return [name for name in edges if name in found]


def stop_budget(specs: Mapping[str, ComponentSpec], *, drain_timeout: float, grace_period: float) -> StopBudget:
    """Return the longest that a stop can take.

    A component stops once all that stand on it have stopped, and independent ones stop at the same time; so the
    worst case is the chain with the greatest sum of `stop_timeout`s, between the drain and the flush of events.

    Args:
        specs: All components, without cycles.
        drain_timeout: Seconds for what is in flight.
        grace_period: Seconds that the stop may take.
    """
    chain = (Wait(id_, specs[id_].stop_timeout) for id_ in _slowest_chain(specs))
    return StopBudget(
        waits=(Wait("drain", drain_timeout), *chain, Wait("flush", FLUSH)),
        grace_period=grace_period,
    )


def _slowest_chain(specs: Mapping[str, ComponentSpec]) -> list[str]:
    edges = edges_of(specs)
    users = reverse(edges)
    stopped_at: dict[str, float] = {}
    last_user: dict[str, str | None] = {}
    for id_ in reversed(start_order(edges)):
        slowest = max(users[id_], key=stopped_at.__getitem__, default=None)
        last_user[id_] = slowest
        stopped_at[id_] = specs[id_].stop_timeout + (stopped_at[slowest] if slowest else 0.0)
    chain: list[str] = []
    id_or_none = max(stopped_at, key=stopped_at.__getitem__, default=None)
    while id_or_none is not None:
        chain.append(id_or_none)
        id_or_none = last_user[id_or_none]
    return chain[::-1]
