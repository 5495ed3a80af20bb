"""Looking at type annotations: what is a union, an array, a table; and how to say it to a user.

Shared by `structure` (the manifest) and `payload` (messages). Knows no values.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, cast, get_args, get_origin
from uuid import UUID

import attrs

from .._core.secret import Secret
from .._core.words import listed, shown

UNIONS: Final[frozenset[object]] = frozenset({typing.Union, types.UnionType})
TABLES: Final[frozenset[object]] = frozenset({dict, Mapping, collections.abc.MutableMapping})
ARRAYS: Final[Mapping[object, Callable[[list[object]], object]]] = {
    list: list,
    collections.abc.MutableSequence: list,
    tuple: tuple,
    collections.abc.Sequence: tuple,
    collections.abc.Collection: tuple,
    collections.abc.Iterable: tuple,
    set: set,
    frozenset: frozenset,
    collections.abc.Set: frozenset,
    collections.abc.MutableSet: set,
}
"""What an array becomes, by the type that is asked for."""
_NAMES: Final[Mapping[object, str]] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    datetime: "a date and time",
    date: "a date",
    time: "a time of day",
    Decimal: "a decimal number in a string",
    UUID: "a UUID in a string",
    Path: "a path in a string",
    Secret: 'a secret: { env = "NAME" } or { file = "/path" }',
    type: 'a class, as "module:Name"',
    cast("object", collections.abc.Callable): 'a function, as "module:name"',
    None: "null",
    type(None): "null",
}


def plain_type(annotation: object) -> object:
    """Return a type without `Annotated`, `NewType`, `Required` and `type` aliases around it."""
    while True:
        if get_origin(annotation) in (typing.Annotated, typing.Required, typing.NotRequired, typing.Final):
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = cast("Any", annotation).__value__
        else:
            return annotation


def origin_of(annotation: object) -> object:
    """Return the class of a generic type (`list` of `list[int]`), or the type itself."""
    return get_origin(annotation) or annotation


def is_class_with_fields(origin: object) -> bool:
    """Return whether a type is an attrs class or a dataclass."""
    return isinstance(origin, type) and (attrs.has(origin) or dataclasses.is_dataclass(origin))


def is_enum(origin: object) -> typing.TypeGuard[type[enum.Enum]]:
    """Return whether a type is an enumeration."""
    return isinstance(origin, type) and issubclass(origin, enum.Enum)


def array_items(arguments: tuple[object, ...], origin: object) -> tuple[object, ...] | None:
    """Return the item types of a tuple of fixed length; None for all other arrays."""
    return None if origin is not tuple or not arguments or arguments[1:] == (...,) else arguments


def describe(annotation: object, *, table: str = "a table") -> str:
    """Return what a field of a type takes, in words: `an integer`, `an array`, `"a" or "b"`.

    Args:
        annotation: The type.
        table: What mappings are called where the value comes from.
    """
    annotation = plain_type(annotation)
    origin = origin_of(annotation)
    if origin in _NAMES:
        return _NAMES[origin]
    if origin in UNIONS:
        options = [option for option in get_args(annotation) if option is not type(None)]
        return listed([describe(option, table=table) for option in options], last="or")
    if origin is typing.Literal:
        return one_of(get_args(annotation))
    if is_enum(origin):
        return one_of([member.value for member in origin])
    return _describe_container(origin, table)


def _describe_container(origin: object, table: str) -> str:
    if origin in ARRAYS:
        return "an array"
    if origin in TABLES or is_class_with_fields(origin) or typing.is_typeddict(origin):
        return table
    return f"of type {getattr(origin, '__name__', str(origin))}"


def one_of(options: collections.abc.Iterable[object]) -> str:
    """Return `"a", "b" or "c"`."""
    return listed([shown(option) for option in options], last="or")
