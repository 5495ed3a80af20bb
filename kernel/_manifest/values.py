"""Every effective value of a plan and where it came from, for `kernel plan`; no secret is ever shown."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, time
from pathlib import PurePath
from types import FunctionType
from typing import cast

import attrs

from .._convert.strict import is_table
from .._core.masks import Masks
from .._core.passwords import MASK, masked, names_a_password
from .._core.secret import Secret
from .._core.spec import Value
from .._core.words import toml_key, toml_path
from .manifest import Manifest


def values_of(manifest: Manifest, parts: Iterable[tuple[tuple[str, ...], object]]) -> list[Value]:
    """Return the values of structured tables, one for each key, in order.

    Args:
        manifest: Knows where a value was written.
        parts: Where a table stands, and what it became.
    """
    masks = Masks.of(manifest.secrets())

    def shown(at: tuple[str, ...], value: object) -> str:
        text = _shown(at[-1], value)
        return masks.applied(text) if manifest.is_from_outside(at) else text

    return [
        Value(path=toml_path(at[:-1], at[-1:]), shown=shown(at, value), origin=manifest.origin(at))
        for part in parts
        for at, value in _leaves(*part)
    ]


def _shown(key: str, value: object) -> str:
    return MASK if isinstance(value, str) and value and names_a_password(key) else toml_text(value)


def _leaves(at: tuple[str, ...], value: object) -> Iterator[tuple[tuple[str, ...], object]]:
    items = _items(value)
    if not items:
        yield at, value
    for key, item in items.items():
        yield from _leaves((*at, key), item)


def _items(value: object) -> Mapping[str, object]:
    if is_table(value):
        return value
    if attrs.has(type(value)):
        fields = attrs.fields(type(cast("attrs.AttrsInstance", value)))
        return {field.alias or field.name: getattr(value, field.name) for field in fields if field.init}
    return {}


def toml_text(value: object) -> str:
    """Return a value as TOML would say it; `none` for None, which TOML cannot say, and `***` for a secret."""
    if is_table(value) or attrs.has(type(value)):
        pairs = (f"{toml_key(key)} = {_shown(key, item)}" for key, item in _items(value).items())
        return f"{{ {', '.join(pairs)} }}" if _items(value) else "{}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(toml_text, cast('Iterable[object]', value)))}]"
    return _scalar_text(value)


def _scalar_text(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case enum.Enum():
            return toml_text(value.value)
        case str() | PurePath():
            return json.dumps(masked(str(value)), ensure_ascii=False)
        case int() | float() | Secret() | date() | time():
            return str(value)
        case _:
            return _other_text(value)


def _other_text(value: object) -> str:
    if isinstance(value, type | FunctionType):
        return json.dumps(f"{value.__module__}:{value.__qualname__}")
    return type(value).__name__
