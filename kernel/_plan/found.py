"""Workers that the manifest does not declare: a dispatcher says where they are, and their classes name the dispatcher.

What is found becomes tables that lie under the manifest, so that a table of the same name says the rest, turns it off
or multiplies it, and everything knows where it is from.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Final, cast, final

import attrs

from .._convert.folder import first_on_path, name_fault
from .._convert.imports import describe
from .._convert.strict import is_table
from .._core.words import quoted
from .._manifest.layers import Layer, lay_over, paths_in
from .._manifest.manifest import Manifest
from .._manifest.registry import Registry
from .._manifest.tables import Report
from .._manifest.toml import Lines
from ..errors import PluginError

_DECLARED: Final = "declared"
_INSTALLED: Final = "installed"
_NEAR: Final = 0.8
"""How like a name has to be to be taken for misspelt: other services have dispatchers of other names."""


def with_found_workers(manifest: Manifest, registry: Registry, report: Report, warn: Report) -> Manifest:
    """Return a manifest with the workers that its dispatchers find; the same one if they find none.

    Imports what it looks into, and warns of classes there that name a dispatcher by a word which one of them almost is.
    """
    dispatchers = manifest.tables.get("dispatchers")
    known: Mapping[str, object] = dispatchers if is_table(dispatchers) else {}
    seen = set[str]()
    for name, table in known.items():
        where = table.get("workers", _DECLARED) if is_table(table) else _DECLARED
        if where == _DECLARED or not isinstance(where, str) or not is_table(table) or table.get("enabled") is False:
            continue
        at = ("dispatchers", name, "workers")
        classes = list(_classes(manifest, registry, where, at, report))
        for one in classes:
            if one.dispatcher == name:
                manifest = _with(manifest, one, name)
        # Without any worker the manifest is wrong already, and then only what is wrong is told.
        tell = warn if _has_worker(manifest, name) else report
        for one in classes:
            if one.use not in seen and (fault := _misspelt(one, known)):
                tell(at, fault)
            seen.add(one.use)
    return manifest


@final
@attrs.frozen
class _Class:
    """A class that names a dispatcher."""

    name: str
    """Of the worker that it is."""
    use: str
    place: str
    dispatcher: str


def _has_worker(manifest: Manifest, dispatcher: str) -> bool:
    workers = manifest.tables.get("workers")
    tables = workers.values() if is_table(workers) else ()
    return any(is_table(table) and table.get("dispatcher") == dispatcher for table in tables)


def _misspelt(one: _Class, known: Mapping[str, object]) -> str:
    """Return which dispatcher a class may mean that names none of the manifest's; another service's is unlike them all."""
    near = [] if one.dispatcher in known else difflib.get_close_matches(one.dispatcher, list(known), n=1, cutoff=_NEAR)
    if not near:
        return ""
    return f'"{one.use}" is no worker: there is no dispatcher {quoted(one.dispatcher)}; did you mean "{near[0]}"?'


def _with(manifest: Manifest, one: _Class, dispatcher: str) -> Manifest:
    found = {"workers": {one.name: {"use": one.use, "dispatcher": dispatcher}}}
    lower = Layer(found, Lines().written(paths_in(found), one.place))
    layer = lay_over(lower, Layer(manifest.tables, manifest.lines))
    return attrs.evolve(manifest, tables=layer.tables, lines=layer.lines)


def _classes(
    manifest: Manifest, registry: Registry, where: str, at: tuple[str, ...], report: Report
) -> Iterator[_Class]:
    """Yield the classes at a place that name a dispatcher, whichever it is."""
    if where == _INSTALLED:
        for plugin in (plugin for plugin in registry.plugins if plugin.kind == "worker"):
            try:
                cls = registry.load("worker", plugin.name)
            except PluginError as error:
                report(at, str(error))
                continue
            if dispatcher := _named_by(cls):
                yield _Class(plugin.name, plugin.name, f"installed with {plugin}", dispatcher)
        return
    with first_on_path(manifest.directory):
        for module in _modules(where, manifest.directory, at, report):
            for cls in vars(module).values():
                if inspect.isclass(cls) and cls.__module__ == module.__name__ and (dispatcher := _named_by(cls)):
                    use, place = f"{module.__name__}:{cls.__qualname__}", f"found in {module.__name__}"
                    yield _Class(_name_of(cls), use, place, dispatcher)


def _named_by(found: object) -> str:
    """Return the dispatcher that a class names by an attribute of its own; empty if it names none."""
    named = vars(found).get("dispatcher") if isinstance(found, type) else None
    return named if isinstance(named, str) else ""


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
