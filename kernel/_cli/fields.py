"""attrs classes -> JSON Schema: types, defaults, what validators allow, and the strings under fields."""

from __future__ import annotations

import ast
import enum
import inspect
import itertools
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Final, TypeAlias, cast, get_args, get_origin

import attrs

from .._convert.annotations import ARRAYS, TABLES, UNIONS, plain_type
from .._core.secret import Secret
from .._manifest.tables import MAX_CONCURRENCY, DispatcherTable, KernelTable

Schema: TypeAlias = dict[str, Any]

_FROM_OUTSIDE: Final[Schema] = {"type": "string", "pattern": r"\$\{"}
"""A string that will be substituted may become any other."""
_SECRET: Final[Schema] = {
    "description": "a secret: from the environment, or from a file",
    "oneOf": [
        {
            "type": "object",
            "properties": {key: {"type": "string", "minLength": 1}},
            "required": [key],
            "additionalProperties": False,
        }
        for key in ("env", "file")
    ],
}
_LEAVES: Final[Mapping[object, Schema]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    Path: {"type": "string"},
    datetime: {"type": "string"},
    date: {"type": "string"},
    time: {"type": "string"},
    Secret: _SECRET,
    type: {"type": "string"},
    Callable: {"type": "string"},
}
_BOUNDS: Final = {">=": "minimum", ">": "exclusiveMinimum", "<=": "maximum", "<": "exclusiveMaximum"}


def _validator(cls: type[object], name: str) -> object:
    return attrs.fields_dict(cast("Any", cls))[name].validator


_OF_THE_KERNEL: Final[tuple[tuple[object, Schema], ...]] = (
    (_validator(KernelTable, "grace_period"), {"exclusiveMinimum": 0}),
    (_validator(DispatcherTable, "concurrency"), {"minimum": 1, "maximum": MAX_CONCURRENCY}),
)
"""What the kernel's own validators allow."""


def object_schema(cls: type[object]) -> Schema:
    """Return the schema of the table that an attrs class is made of."""
    types = typing.get_type_hints(cls)
    fields = [field for field in attrs.fields(cast("Any", cls)) if field.init]
    notes = _notes(cls)
    properties = {_key(field): _field_schema(field, types.get(field.name, object), notes) for field in fields}
    required = [_key(field) for field in fields if field.default is attrs.NOTHING]
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": required} if required else {})


def _key(field: attrs.Attribute[Any]) -> str:
    return field.alias or field.name


def _field_schema(field: attrs.Attribute[Any], annotation: object, notes: Mapping[str, str]) -> Schema:
    schema = type_schema(annotation)
    for limits in _limits(field.validator):
        schema = _limited(schema, limits)
    if note := notes.get(field.name):
        schema = schema | {"description": note}
    return schema | _default(field.default)


def _limited(schema: Schema, limits: Schema) -> Schema:
    """Add limits to a schema; those of a union's options belong to the options, which is where a type stands."""
    if "anyOf" in schema:
        return schema | {
            "anyOf": [_limited(option, limits) if "type" in option else option for option in schema["anyOf"]]
        }
    return schema | limits


def _default(default: object) -> Schema:
    if default is None or default is attrs.NOTHING:
        return {}
    plain = _json_of(default)
    return {} if plain is None else {"default": plain}


def _json_of(value: object) -> object:
    """Return a value as JSON has it, or None if it has no such value."""
    match value:
        case enum.Enum():
            return _json_of(value.value)
        case bool() | int() | float() | str():
            return value
        case tuple() | list():
            items = [_json_of(item) for item in cast("list[object]", value)]
            return None if None in items else items
        case Path():
            return str(value)
        case _:
            return None


# --- types --------------------------------------------------------------------------------------------------------


def type_schema(annotation: object) -> Schema:
    """Return the schema of a value of a type, as `structure` reads it."""
    annotation = plain_type(annotation)
    origin = get_origin(annotation) or annotation
    arguments = get_args(annotation)
    if origin in _LEAVES:
        return dict(_LEAVES[origin])
    if origin in UNIONS:
        return _union(arguments)
    if origin is typing.Literal:
        return _one_of([option.value if isinstance(option, enum.Enum) else option for option in arguments])
    if origin in ARRAYS:
        return _array(origin, arguments)
    return _class_schema(origin, arguments)


def _class_schema(cls: object, arguments: tuple[object, ...]) -> Schema:
    if cls in TABLES:
        return {"type": "object", "additionalProperties": type_schema(arguments[1]) if arguments else True}
    if isinstance(cls, type) and issubclass(cls, enum.Enum):
        return _one_of([member.value for member in cls])
    if isinstance(cls, type) and attrs.has(cls):
        return object_schema(cls)
    return {}


def _one_of(values: list[object]) -> Schema:
    allowed: Schema = {"enum": values}
    if not any(isinstance(value, str) for value in values):
        return allowed
    return {"anyOf": [allowed, dict(_FROM_OUTSIDE)]}


def _union(options: tuple[object, ...]) -> Schema:
    schemas = [type_schema(option) for option in options if option is not type(None)]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _array(origin: object, arguments: tuple[object, ...]) -> Schema:
    if origin is tuple and arguments and arguments[-1] is not ...:
        length = len(arguments)
        return {
            "type": "array",
            "prefixItems": [type_schema(argument) for argument in arguments],
            "minItems": length,
            "maxItems": length,
        }
    return {"type": "array"} | ({"items": type_schema(arguments[0])} if arguments else {})


# --- validators ---------------------------------------------------------------------------------------------------


def _limits(validator: object) -> Iterator[Schema]:
    """Yield what a validator allows, as far as it is one of attrs' or of the kernel's."""
    for known, limits in _OF_THE_KERNEL:
        if validator is known:
            yield limits
    read = _READERS.get(type(validator).__name__)
    if read is not None and type(validator).__module__.startswith("attr."):
        yield from read(validator)


def _read_and(validator: Any) -> Iterator[Schema]:  # noqa: ANN401  attrs does not export the classes
    for inner in validator._validators:  # noqa: SLF001  as above
        yield from _limits(inner)


def _read_number(validator: Any) -> Iterator[Schema]:  # noqa: ANN401  as above
    if validator.compare_op in _BOUNDS:
        yield {_BOUNDS[validator.compare_op]: validator.bound}


def _read_in(validator: Any) -> Iterator[Schema]:  # noqa: ANN401  as above
    options = [_json_of(option) for option in cast("Iterable[object]", validator.options)]
    if None not in options:
        yield {"enum": sorted(options, key=repr)}


_READERS: Final[Mapping[str, Callable[[Any], Iterator[Schema]]]] = {
    "_AndValidator": _read_and,
    "_NumberValidator": _read_number,
    "_OptionalValidator": lambda validator: _limits(validator.validator),
    "_InValidator": _read_in,
    "_MinLengthValidator": lambda validator: iter([{"minLength": validator.min_length}]),
    "_MaxLengthValidator": lambda validator: iter([{"maxLength": validator.max_length}]),
    "_MatchesReValidator": lambda validator: iter([{"pattern": f"^(?:{validator.pattern.pattern})$"}]),
}


# --- words --------------------------------------------------------------------------------------------------------


def _notes(cls: type[object]) -> Mapping[str, str]:
    """Return the strings that stand under fields in the source, base classes included; none if there is no source."""
    notes: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        notes |= dict(_notes_in(tree.body[0]))
    return notes


def _notes_in(definition: ast.stmt) -> Iterator[tuple[str, str]]:
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    for field, text in itertools.pairwise(body):
        note = text.value if isinstance(text, ast.Expr) else None
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(note, ast.Constant):
            yield field.target.id, " ".join(inspect.cleandoc(str(note.value)).split())
