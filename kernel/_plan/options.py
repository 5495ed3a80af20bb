"""What may follow `--` on the command line of a service: the arguments of its manifest, and keys of workers' `config`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import cast, final

import attrs

from .._convert.imports import NotImportableError, import_object
from .._convert.strict import is_table
from .._manifest.manifest import Manifest
from .._manifest.reading import section
from .._manifest.registry import Registry
from .._manifest.substitute import option_name
from .._manifest.values import toml_text
from ..errors import PluginError
from .injection import arguments_of


@final
@attrs.frozen(kw_only=True)
class ServiceOption:
    """One option, for the help."""

    name: str
    """`--dry-run`."""
    type: str
    default: str
    """Empty if it has to be given."""
    help: str


def options_of(manifest: Manifest, registry: Registry) -> list[ServiceOption]:
    """Return the options of a service in order; imports the workers that take some, and no other."""
    declared = [
        ServiceOption(name=option_name(one.name), type=one.type, default=_shown(one.default), help=one.help)
        for one in manifest.arguments
    ]
    return declared + [option for name in manifest.takers for option in _of_worker(manifest, registry, name)]


def _shown(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else toml_text(value)


def _of_worker(manifest: Manifest, registry: Registry, name: str) -> Iterator[ServiceOption]:
    table = section(manifest, "workers")[name]
    given = table.get("config")
    for key, kind, default in _fields(_config_class(manifest, registry, str(table.get("use")))):
        said = given.get(key, default) if is_table(given) else default
        yield ServiceOption(name=option_name(key), type=kind, default=_shown(said), help=f"of worker/{name}")


def _config_class(manifest: Manifest, registry: Registry, use: str) -> object:
    try:
        found = import_object(use, directory=manifest.directory) if ":" in use else registry.load("worker", use)
    except (NotImportableError, PluginError):
        return None
    arguments = arguments_of(cast("Callable[..., object]", found), use, lambda _at, _text: None)
    config = next((one for one in arguments if one.name == "config"), None)
    try:
        return None if config is None else config.annotation()
    except Exception:  # noqa: BLE001  annotations are code; a check reports this one
        return None


def _fields(cls: object) -> Iterator[tuple[str, str, object]]:
    """Yield name, type and default (None for none) of the fields of an attrs class or dataclass."""
    if isinstance(cls, type) and attrs.has(cls):
        for field in attrs.fields(cls):
            yield field.alias or field.name, _type_name(field.type), _plain(field.default)
    else:
        fields = cast("Mapping[str, object]", getattr(cls, "__dataclass_fields__", {}))
        for name, field in fields.items():
            yield name, _type_name(getattr(field, "type", None)), _plain(getattr(field, "default", None))


def _type_name(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation or "")


def _plain(default: object) -> object:
    """Return the default of a field; None if it has none, or one that is made for each object."""
    return None if any(default is none for none in (attrs.NOTHING, dataclasses.MISSING)) else default
