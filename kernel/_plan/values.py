"""What a plan was made of, value by value and with where each is from; for those who look at it, and for nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import attrs

from .._core.spec import Value
from .._manifest.tables import DriverTable, Entry, ProtocolTable, Tables
from .._manifest.values import values_of
from .ground import Ground, Wired, Wiring, plugin_of, stop_timeout_of
from .staff import Hired, shape_of


def list_values(ground: Ground, name: str, wiring: Wiring, workers: Mapping[str, Hired]) -> list[Value]:
    """Return every effective value of a manifest with which nothing is wrong, in the order of its tables."""
    return values_of(ground.manifest, _parts(ground, name, wiring, workers))


def _parts(
    ground: Ground, name: str, wiring: Wiring, workers: Mapping[str, Hired]
) -> Iterator[tuple[tuple[str, ...], object]]:
    tables: Tables = ground.tables
    yield ("kernel",), attrs.evolve(tables.kernel, name=name)
    yield ("logging",), tables.logging
    own = [wired for name, wired in wiring.drivers.items() if name not in (ground.lent or {})]
    for wired in (*own, *wiring.dispatchers.values()):
        yield wired.entry.at, _with_source(wired)
        yield from _config_parts(wired.entry.at, wired.config)
    for key, spec in wiring.protocols.items():
        declared = tables.protocols.get(key)
        yield ("protocols", key), _protocol_values(declared) if declared else {"plugin": key}
        yield from _config_parts(("protocols", key), spec.config)
    for worker in workers.values():
        table = attrs.asdict(worker.table, recurse=False)
        config = shape_of(worker).injection.config
        yield worker.entry.at, table | {"config": config, "options": worker.options}
    for group, members in tables.groups.items():
        yield ("groups", group), members
    for stage, said in tables.stages.items():
        yield ("stages", stage), said
    for service, inner in tables.services.items():
        yield (
            ("services", service),
            {key: value for key, value in attrs.asdict(inner, recurse=False).items() if key != "set"},
        )


def _protocol_values(entry: Entry[ProtocolTable]) -> Mapping[str, object]:
    table = cast("ProtocolTable", entry.table)
    return {"plugin": plugin_of(entry), "inbound": table.inbound, "outbound": table.outbound}


def _with_source(wired: Wired) -> DriverTable:
    table = attrs.evolve(cast("DriverTable", wired.entry.table), stop_timeout=stop_timeout_of(wired))
    return table if table.use else attrs.evolve(table, plugin=plugin_of(wired.entry))


def _config_parts(at: tuple[str, ...], config: object) -> Iterator[tuple[tuple[str, ...], object]]:
    if attrs.fields(type(cast("attrs.AttrsInstance", config))):
        yield at, config
