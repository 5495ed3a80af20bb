"""The tables of a manifest, read: what is wrong is reported, and what is right is looked at all the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar, cast

import attrs

from .._convert.strict import is_table
from .._convert.structure import structure
from .._core.policies import LogPolicy, Restart
from .inside import is_disabled
from .manifest import Manifest
from .tables import (
    MAX_GRACE_PERIOD,
    RESERVED,
    SECTIONS,
    DispatcherTable,
    Entry,
    GroupTable,
    KernelTable,
    ProtocolTable,
    Report,
    SenderTable,
    ServiceTable,
    StageTable,
    Tables,
    WorkerTable,
    under,
)

TableT = TypeVar("TableT")


def read_tables(manifest: Manifest, report: Report) -> Tables:
    """Structure all keys that belong to the kernel."""
    disabled: set[str] = set()
    drivers = _entries(manifest, "driver", SenderTable, disabled, report)
    protocols = _entries(manifest, "protocol", ProtocolTable, disabled, report)
    dispatchers = _entries(manifest, "dispatcher", DispatcherTable, disabled, report)
    workers = _entries(manifest, "worker", WorkerTable, disabled, report)
    return Tables(
        kernel=_read_kernel(manifest, report),
        logging=_read_logging(manifest, report),
        drivers=drivers,
        protocols=protocols,
        dispatchers=dispatchers,
        workers=workers,
        groups=_read_named(manifest, "groups", GroupTable, report),
        stages=_read_named(manifest, "stages", StageTable, report),
        services=_read_services(manifest, report),
        disabled=frozenset(disabled),
    )


def section(manifest: Manifest, name: str) -> Mapping[str, Mapping[str, object]]:
    """Return a table of tables, empty if the manifest has none."""
    return cast("Mapping[str, Mapping[str, object]]", manifest.tables.get(name, {}))


def _read_kernel(manifest: Manifest, report: Report) -> KernelTable:
    table = _checked_kernel(manifest, report)
    return KernelTable() if table is None else table


def several_processes(manifest: Manifest) -> KernelTable | None:
    """Return `[kernel]` of a manifest that wants several processes; None if it does not, or it is wrong."""
    given = cast("Mapping[str, object]", manifest.tables.get("kernel", {}))
    if given.get("processes", 1) == 1:
        return None
    wrong: list[str] = []
    table = _checked_kernel(manifest, lambda _at, text: wrong.append(text))
    return None if table is None or wrong or table.processes == 1 else table


def _checked_kernel(manifest: Manifest, report: Report) -> KernelTable | None:
    report = under(report, "kernel")
    given = cast("Mapping[str, object]", manifest.tables.get("kernel", {}))
    table, wrong = _structure_rest(given, KernelTable, report)
    if table is None or wrong & {"grace_period", "drain_timeout"}:
        return table
    if table.grace_period > MAX_GRACE_PERIOD:
        report(("grace_period",), f"must be at most {MAX_GRACE_PERIOD:g} s, got {table.grace_period!r}")
    if table.drain_timeout >= table.grace_period:
        text = f"must be less than grace_period = {table.grace_period!r}, of which it is a part"
        report(("drain_timeout",), f"{text}, got {table.drain_timeout!r}")
    return table


def _read_logging(manifest: Manifest, report: Report) -> LogPolicy:
    given = cast("Mapping[str, object]", manifest.tables.get("logging", {}))
    return structure(given, LogPolicy, report=under(report, "logging")) or LogPolicy()


def _read_named(manifest: Manifest, name: str, cls: type[TableT], report: Report) -> dict[str, TableT]:
    return _structured(name, section(manifest, name), cls, report)


def _structured(
    name: str, tables: Mapping[str, Mapping[str, object]], cls: type[TableT], report: Report
) -> dict[str, TableT]:
    read = {key: structure(given, cls, report=under(report, name, key)) for key, given in tables.items()}
    return {key: table for key, table in read.items() if table is not None}


def _read_services(manifest: Manifest, report: Report) -> dict[str, ServiceTable]:
    given = section(manifest, "services")
    enabled = {name: table for name, table in given.items() if not is_disabled(table.get("enabled"))}
    return _structured("services", enabled, ServiceTable, report)


def _entries(
    manifest: Manifest, kind: str, cls: type[TableT], disabled: set[str], report: Report
) -> dict[str, Entry[TableT]]:
    entries: dict[str, Entry[TableT]] = {}
    for name, given in section(manifest, SECTIONS[kind]).items():
        if is_disabled(given.get("enabled")):
            disabled.add(f"{kind}/{name}")
        else:
            entries[name] = _read_entry(kind, name, given, cls, manifest.unknown, report)
    return entries


def _read_entry(
    kind: str,
    name: str,
    given: Mapping[str, object],
    cls: type[TableT],
    unknown: Collection[tuple[str, ...]],
    report: Report,
) -> Entry[TableT]:
    at = (SECTIONS[kind], name)
    # Workers have no plugin, so that a key that is not the kernel's is nobody's.
    own = given if kind == "worker" else {key: given[key] for key in given if key in RESERVED[at[0]]}
    table, wrong = _structure_rest(own, cls, under(report, *at))
    table = _with_policy(table, given)
    wrong |= {path[2] for path in unknown if path[:2] == at and len(path) > 2}
    return Entry(id=f"{kind}/{name}", name=name, at=at, table=table, wrong=wrong, given=given)


def _with_policy(table: TableT | None, given: Mapping[str, object]) -> TableT | None:
    """Return a table in which what is done once is not started again for having been done, if nothing is said of it."""
    restart = given.get("restart")
    if not isinstance(table, WorkerTable) or (is_table(restart) and "policy" in restart):
        return table
    if table.main:
        return attrs.evolve(table, restart=attrs.evolve(table.restart, policy=Restart.NEVER))
    if table.oneshot:
        return attrs.evolve(table, restart=attrs.evolve(table.restart, policy=Restart.ON_FAILURE))
    return table


def _structure_rest(
    given: Mapping[str, object], cls: type[TableT], report: Report
) -> tuple[TableT | None, frozenset[str]]:
    """Structure a table; if that fails, do so without the keys at fault, so that the others are looked at too."""
    wrong: set[str] = set()

    def note(at: tuple[str, ...], text: str) -> None:
        wrong.add(at[0])
        report(at, text)

    table = structure(given, cls, report=note)
    if table is None:
        rest = {key: value for key, value in given.items() if key not in wrong}
        table = structure(rest, cls, report=lambda _at, _text: None)
    return table, frozenset(wrong)
