"""A JSON Schema (2020-12) of manifests, read off the attrs classes of the kernel and of the installed plugins.

It says what an editor can know: keys, types, ranges, defaults. What `kernel check` finds by looking at several tables
or at workers is beyond it; what it refuses, `kernel check` refuses too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from .._convert.leaves import Schema
from .._convert.schema import open_book, table_schema
from .._convert.walk import Book
from .._core.policies import LogPolicy
from .._manifest.registry import Plugin, Registry
from .._manifest.tables import (
    SECTIONS,
    DispatcherTable,
    GroupTable,
    KernelTable,
    ProtocolTable,
    SenderTable,
    ServiceTable,
    StageTable,
    WorkerTable,
)
from ..abc import Component
from ..errors import PluginError

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_NAME: Final = {"pattern": "^[a-z][a-z0-9_]{0,63}$"}
_PLUGGED: Final[Mapping[str, type[object]]] = {
    "driver": SenderTable,
    "protocol": ProtocolTable,
    "dispatcher": DispatcherTable,
}
"""Kinds that come from plugins, with the class of the keys that are the kernel's."""
_TITLES: Final = {
    "driver": "a connection to the outside",
    "protocol": "a protocol that needs options or a name of its own",
    "dispatcher": "a source of deliveries",
}
_OFF: Final[Schema] = {"properties": {"enabled": {"const": False}}, "required": ["enabled"]}
"""A component that is left out: nothing else of it is looked at."""

Broken: TypeAlias = list[PluginError]


def manifest_schema(registry: Registry) -> tuple[dict[str, Any], Sequence[PluginError]]:
    """Return the schema of manifests for what is installed, and why some plugins are left open in it."""
    broken: Broken = []
    book = open_book()
    definitions: dict[str, Schema] = {}
    properties: dict[str, Schema] = {
        "kernel": table_schema(KernelTable, book),
        "logging": table_schema(LogPolicy, book),
    }
    for kind, table in _PLUGGED.items():
        plugins = [plugin for plugin in registry.plugins if plugin.kind == kind]
        definitions |= {_key(plugin): _definition(registry, plugin, table, book, broken) for plugin in plugins}
        definitions[f"{kind}.own"] = _own(table, book)
        properties[SECTIONS[kind]] = _tables_of(kind, plugins)
    properties["workers"] = _unless_off(table_schema(WorkerTable, book), "the user's code")
    properties["stages"] = _named(table_schema(StageTable, book), "points in the life of the service")
    properties["services"] = _unless_off(table_schema(ServiceTable, book), "manifests that are run inside")
    properties["groups"] = _named(table_schema(GroupTable, book), "workers that are restarted together")
    schema: dict[str, Any] = {
        "$schema": DIALECT,
        "title": "kernel manifest",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "minProperties": 1,
        "$defs": definitions | book.definitions,
    }
    return schema, broken


def _key(plugin: Plugin) -> str:
    return f"{plugin.kind}.{plugin.distribution}.{plugin.name}"


def _definition(registry: Registry, plugin: Plugin, table: type[object], book: Book, broken: Broken) -> Schema:
    """Return the schema of the tables that one plugin makes components of."""
    try:
        loaded: object = registry.load(plugin.kind, f"{plugin.distribution}:{plugin.name}")
    except PluginError as error:
        broken.append(error)
        return {"type": "object", "description": f"{plugin} cannot be loaded"}
    made = table_schema(table, book)
    if isinstance(loaded, type) and issubclass(loaded, Component):
        made = _joined(table_schema(loaded.Config, book), made)
    return made | {"description": f"{plugin.kind} {plugin.name} of {plugin}"}


def _joined(own: Schema, shared: Schema) -> Schema:
    required = [*own.get("required", ()), *shared.get("required", ())]
    properties = {**own["properties"], **shared["properties"], **own["properties"]}  # in order; its own meaning wins
    return {**shared, "properties": properties, **({"required": required} if required else {})}


def _own(table: type[object], book: Book) -> Schema:
    """Return the schema of a component whose class the manifest names itself: its keys are not known here."""
    return table_schema(table, book) | {"additionalProperties": True, "required": ["use"]}


def _tables_of(kind: str, plugins: Sequence[Plugin]) -> Schema:
    """Return the schema of `[drivers]` and its like: by the key `plugin`, or else by the component's own name."""
    by_name = {plugin.name: _component(kind, plugins, default=plugin) for plugin in plugins}
    return {
        "type": "object",
        "description": _TITLES[kind],
        "propertyNames": dict(_NAME),
        "properties": by_name,
        "additionalProperties": _component(kind, plugins, default=None),
    }


def _component(kind: str, plugins: Sequence[Plugin], *, default: Plugin | None) -> Schema:
    fallback: Schema = {"required": ["plugin"]} if default is None else {"$ref": f"#/$defs/{_key(default)}"}
    chosen: Schema = fallback
    for plugin in plugins:
        is_chosen = {"properties": {"plugin": {"enum": _spellings(plugin)}}, "required": ["plugin"]}
        chosen = {"if": is_chosen, "then": {"$ref": f"#/$defs/{_key(plugin)}"}, "else": chosen}
    known = {"properties": {"plugin": {"enum": [word for plugin in plugins for word in _spellings(plugin)]}}}
    own = {"$ref": f"#/$defs/{kind}.own"}
    use_or_plugin: Schema = {"if": {"required": ["use"]}, "then": own, "else": {**known, **chosen}}
    return {"type": "object", "if": _OFF, "else": use_or_plugin}


def _spellings(plugin: Plugin) -> list[str]:
    short = plugin.distribution.removeprefix("trio-kernel-")
    return list(dict.fromkeys([plugin.name, f"{plugin.distribution}:{plugin.name}", f"{short}:{plugin.name}"]))


def _unless_off(component: Schema, description: str) -> Schema:
    return _named({"type": "object", "if": _OFF, "else": component}, description)


def _named(component: Schema, description: str) -> Schema:
    return {
        "type": "object",
        "description": description,
        "propertyNames": dict(_NAME),
        "additionalProperties": component,
    }
