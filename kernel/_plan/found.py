"""Workers that the manifest does not declare: a dispatcher says where they are, and their classes name the dispatcher.

What is found becomes tables that lie under the manifest, so that a table of the same name says the rest, turns it off
or multiplies it, and everything knows where it is from.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final, cast

import attrs

from .._convert.folder import first_on_path, name_fault
from .._convert.imports import describe
from .._convert.strict import is_table
from .._manifest.layers import Layer, lay_over, paths_in
from .._manifest.manifest import Manifest
from .._manifest.registry import Registry
from .._manifest.tables import Report
from .._manifest.toml import Lines
from ..errors import PluginError

_DECLARED: Final = "declared"
_INSTALLED: Final = "installed"


def with_found_workers(manifest: Manifest, registry: Registry, report: Report) -> Manifest:
    """Return a manifest with the workers that its dispatchers find; the same one if they find none.

    Imports what it looks into.
    """
    dispatchers = manifest.tables.get("dispatchers")
    for name, table in dispatchers.items() if is_table(dispatchers) else ():
        where = table.get("workers", _DECLARED) if is_table(table) else _DECLARED
        if where != _DECLARED and isinstance(where, str) and is_table(table) and table.get("enabled") is not False:
            at = ("dispatchers", name, "workers")
            for worker, use, place in _found(manifest, registry, where, name, at, report):
                manifest = _with(manifest, worker, use, name, place)
    return manifest


def _with(manifest: Manifest, worker: str, use: str, dispatcher: str, place: str) -> Manifest:
    found = {"workers": {worker: {"use": use, "dispatcher": dispatcher}}}
    lower = Layer(found, Lines().written(paths_in(found), place))
    layer = lay_over(lower, Layer(manifest.tables, manifest.lines))
    return attrs.evolve(manifest, tables=layer.tables, lines=layer.lines)


def _found(
    manifest: Manifest, registry: Registry, where: str, dispatcher: str, at: tuple[str, ...], report: Report
) -> Iterator[tuple[str, str, str]]:
    """Yield name, import path and place of each worker that names a dispatcher."""
    if where == _INSTALLED:
        for plugin in (plugin for plugin in registry.plugins if plugin.kind == "worker"):
            try:
                cls = registry.load("worker", plugin.name)
            except PluginError as error:
                report(at, str(error))
                continue
            if _names(cls, dispatcher):
                yield plugin.name, plugin.name, f"installed with {plugin}"
        return
    with first_on_path(manifest.directory):
        for module in _modules(where, manifest.directory, at, report):
            for cls in vars(module).values():
                if inspect.isclass(cls) and cls.__module__ == module.__name__ and _names(cls, dispatcher):
                    yield _name_of(cls), f"{module.__name__}:{cls.__qualname__}", f"found in {module.__name__}"


def _names(found: object, dispatcher: str) -> bool:
    return isinstance(found, type) and vars(found).get("dispatcher") == dispatcher


def _name_of(cls: type[object]) -> str:
    name = vars(cls).get("name")
    return name if isinstance(name, str) else re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()


def _modules(name: str, directory: Path, at: tuple[str, ...], report: Report) -> Iterator[ModuleType]:
    """Yield a module, and all below it if it is a package, in the order of their names."""
    module = _import(name, directory, at, report)
    if module is None:
        return
    yield module
    for below in sorted(one.name for one in pkgutil.iter_modules(cast("list[str]", getattr(module, "__path__", [])))):
        yield from _modules(f"{name}.{below}", directory, at, report)


def _import(name: str, directory: Path, at: tuple[str, ...], report: Report) -> ModuleType | None:
    if not all(part.isidentifier() for part in name.split(".")):
        report(at, f'must be "{_DECLARED}", "{_INSTALLED}" or the name of a module')
        return None
    if fault := name_fault(name, directory):
        report(at, fault)
        return None
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001  importing runs code of the user's
        report(at, f'cannot look for workers in "{name}": {describe(error)}')
        return None
