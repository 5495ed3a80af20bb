"""The plan of a service in a test: of the real manifest and the real plugins, with what the test wants changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import attrs

from .._core.spec import DriverSpec, Plan
from .._manifest.manifest import Manifest, from_mapping, load, with_services
from .._manifest.registry import Registry, discover
from .._plan.plan import resolve
from ._faults import Faults
from ._given import faulty_driver, given_driver


def plan_for(
    manifest: Mapping[str, object] | str | Path,
    *,
    replace: Mapping[str, object],
    set_: Mapping[str, object],
    registry: Registry | None,
    environ: Mapping[str, str],
    faults: Faults | None,
) -> Plan:
    """Return the plan of a manifest, changed as `open_kernel` says."""
    registry = discover() if registry is None else registry
    source = (
        from_mapping(manifest, environ=environ) if isinstance(manifest, Mapping) else load(manifest, environ=environ)
    )
    source, registry = _replaced(source, registry, replace)
    source = _with_keys(source, set_)
    if source.services and (set_ or replace):  # which may say something else of those inside
        source = with_services(source, environ=environ)
    plan = resolve(source, registry)
    return plan if faults is None else _with_faults(plan, faults)


def _replaced(source: Manifest, registry: Registry, replace: Mapping[str, object]) -> tuple[Manifest, Registry]:
    if not replace:
        return source, registry
    tables = {name: dict(cast("Mapping[str, object]", table)) for name, table in source.tables.items()}
    given: dict[str, object] = {}
    for path, wanted in replace.items():
        kind, _, name = path.partition(".")
        if name not in tables.get(kind, {}):
            raise KeyError(f"replace: the manifest has no [{path}]")
        if isinstance(wanted, Mapping):
            tables[kind][name] = wanted
        else:
            given[f"given_{name}"] = given_driver(wanted)
            tables[kind][name] = {"plugin": f"given_{name}"}
    tables.get("kernel", {}).pop("plugins", None)  # the test has allowed what it names
    plugins = (*registry.plugins, *Registry.of({"drivers": given}).plugins)
    return attrs.evolve(source, tables=tables), Registry(plugins)


def _with_keys(source: Manifest, keys: Mapping[str, object]) -> Manifest:
    tables = _copied(source.tables)
    paths = {tuple(key.split(".")): value for key, value in keys.items()}
    for path, value in paths.items():
        table = tables
        for step in path[:-1]:
            inner = table.setdefault(step, {})
            if not isinstance(inner, dict):
                raise KeyError(f"set: {'.'.join(path)} leads through {step}, which is no table")
            table = cast("dict[str, object]", inner)
        table[path[-1]] = value
    return attrs.evolve(source, tables=tables, lines=source.lines.written(paths, "--set"))


def _copied(table: Mapping[str, object]) -> dict[str, object]:
    """Return a copy of a table and of the tables in it."""
    return {
        key: _copied(cast("Mapping[str, object]", value)) if isinstance(value, Mapping) else value
        for key, value in table.items()
    }


def _with_faults(plan: Plan, faults: Faults) -> Plan:
    faults.allow_only([spec.id for spec in plan.components.values() if isinstance(spec, DriverSpec)])
    components = {
        key: attrs.evolve(spec, cls=faulty_driver(spec.cls, faults, spec.id)) if isinstance(spec, DriverSpec) else spec
        for key, spec in plan.components.items()
    }
    return attrs.evolve(plan, components=components)
