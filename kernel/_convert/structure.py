"""Tables of the manifest -> attrs objects; the one place where that happens.

Strict: no coercion, no unknown keys, and every problem of a table is reported, not the first. An interpreter of its
own rather than cattrs, whose errors come one for each object and lose the validators' fields; it runs once for each
component. Messages, which come by the thousand, go through `payload`.
"""

from __future__ import annotations

import builtins
import functools
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar, cast, final, get_args

import attrs

from .._core.secret import Secret
from .._core.words import field_and_text, shown, unknown
from .annotations import ARRAYS, TABLES, UNIONS, array_items, describe, is_enum, origin_of, plain_type
from .imports import NotImportableError, import_object
from .strict import PLAIN, WrongValueError, expected, is_array, is_table, read_enum, read_literal

T = TypeVar("T")
At: TypeAlias = tuple[str, ...]
Report: TypeAlias = Callable[[At, str], None]

_WRONG: Final = object()
"""Stands for a value whose problems have been reported."""


def structure(
    value: Mapping[str, object],
    cls: type[T],
    *,
    report: Report,
    also_allowed: Collection[str] = (),
    directory: Path | None = None,
) -> T | None:
    """Make an attrs object of a table.

    Args:
        value: The table, as `Manifest.tables` holds it.
        cls: An attrs class. Its fields may be bool, int, float (an integer will do), str, dates and times, enums (by
            value), `Literal`, `Path` (from a string), `Secret`, `type[Base]` and `Callable` (imported from
            `module:Name`, or the name of one that Python has built in), attrs classes, unions and `None`, lists,
            tuples, sets and mappings of these; a field of any other class takes its instances only.
        report: Called with the path below the table and the text of every problem.
        also_allowed: Keys that somebody else has taken out of the table: suggested for a misspelt key.
        directory: Searched first for modules; None if there is none.

    Returns:
        The object, or None if a problem was reported.
    """
    made = _Reader(report, directory, frozenset(also_allowed)).table(value, cls, ())
    return None if made is _WRONG else cast("T", made)


@final
class _Reader:
    """Reads values by their types; reports problems and goes on."""

    def __init__(self, report: Report, directory: Path | None, also_allowed: frozenset[str] = frozenset()) -> None:
        self._report = report
        self._directory = directory
        self._also_allowed = also_allowed

    def table(self, value: object, cls: type[object], at: At) -> object:
        if isinstance(value, cls):
            return value
        if not is_table(value):
            return self._wrong(at, f"must be a table, got {shown(value)}")
        try:
            fields, types_ = _fields_of(cast("Any", cls))
        except Exception as exc:  # noqa: BLE001 -- evaluates the plugin's annotations
            return self._wrong(at, f"the types of {cls.__qualname__} cannot be resolved, a fault of the plugin: {exc}")
        wrong = self._has_unknown(value, fields, at)
        values: dict[str, object] = {}
        for key, field in fields.items():
            if key in value:
                values[key] = self.value(value[key], types_.get(field.name, object), (*at, key))
            elif field.default is attrs.NOTHING:
                values[key] = self._wrong((*at, key), f"is missing; it must be {describe(types_.get(field.name))}")
        good = {key: item for key, item in values.items() if item is not _WRONG}
        wrong |= len(good) < len(values)
        return self._build(cls, fields, good, at, incomplete=wrong)

    def value(self, value: object, annotation: object, at: At) -> object:
        annotation = plain_type(annotation)
        origin = origin_of(annotation)
        if origin in UNIONS:
            return self._union(value, get_args(annotation), at)
        if origin in ARRAYS:
            return self._array(value, origin, get_args(annotation), at)
        if origin in TABLES:
            return self._mapping(value, get_args(annotation), at)
        if isinstance(origin, type) and attrs.has(origin):
            return self.table(value, origin, at)
        try:
            return _scalar(value, annotation, origin, self._directory)
        except WrongValueError as exc:
            return self._wrong(at, str(exc))

    def _wrong(self, at: At, text: str) -> object:
        self._report(at, text)
        return _WRONG

    def _has_unknown(self, value: Mapping[str, object], fields: Collection[str], at: At) -> bool:
        also = () if at else self._also_allowed
        strangers = [key for key in value if key not in fields]
        for key in strangers:
            self._report((*at, key), unknown("key", key, fields, also))
        return bool(strangers)

    def _build(
        self,
        cls: type[object],
        fields: Mapping[str, attrs.Attribute[Any]],
        values: Mapping[str, object],
        at: At,
        *,
        incomplete: bool,
    ) -> object:
        """Call the class; if it refuses, find out which fields' validators do."""
        cause = "" if not incomplete else None
        if not incomplete:
            try:
                return cls(**values)
            except Exception as exc:  # noqa: BLE001 -- validators are the plugin's; whatever they raise is a problem
                cause = field_and_text(exc)[1]
        faults = _refused(cls, fields, values)
        for key, text in faults:
            self._report((*at, key), text)
        if not faults and cause is not None:
            self._report(at, cause)
        return _WRONG

    def _union(self, value: object, options: tuple[object, ...], at: At) -> object:
        options = tuple(option for option in options if option is not type(None))
        if value is None:
            return None
        if len(options) == 1:
            return self.value(value, options[0], at)
        for option in options:
            made = _Reader(_ignore, self._directory).value(value, option, at)
            if made is not _WRONG:
                return made
        fitting = [option for option in options if is_table(value) and describe(option) == "a table"]
        if len(fitting) == 1:
            return self.value(value, fitting[0], at)
        return self._wrong(at, str(expected(describe(typing.Union[options]), value)))  # noqa: UP007 -- of a tuple

    def _array(self, value: object, origin: object, arguments: tuple[object, ...], at: At) -> object:
        if not is_array(value):
            return self._wrong(at, f"must be an array, got {shown(value)}")
        item_types = array_items(arguments, origin) or (arguments[0] if arguments else object,) * len(value)
        if len(item_types) != len(value):
            return self._wrong(at, f"must be an array of {len(item_types)}, got {len(value)}")
        pairs = zip(value, item_types, strict=True)
        items = [self.value(item, type_, (*at, str(index))) for index, (item, type_) in enumerate(pairs)]
        if any(item is _WRONG for item in items):
            return _WRONG
        return ARRAYS[origin](items)

    def _mapping(self, value: object, arguments: tuple[object, ...], at: At) -> object:
        if not is_table(value):
            return self._wrong(at, f"must be a table, got {shown(value)}")
        key_type, item_type = arguments or (object, object)
        items = [
            (self.value(key, key_type, (*at, key)), self.value(item, item_type, (*at, key)))
            for key, item in value.items()
        ]
        if any(_WRONG in (key, item) for key, item in items):
            return _WRONG
        return dict(items)


@functools.lru_cache(maxsize=1024)
def _fields_of(cls: type[object]) -> tuple[Mapping[str, attrs.Attribute[Any]], Mapping[str, object]]:
    """Return the fields of an attrs class by their keys, and their types by name: once a class, not once a table.

    Raises:
        Exception: whatever evaluating its annotations raises.
    """
    types_ = typing.get_type_hints(cls)
    return {field.alias or field.name: field for field in attrs.fields(cast("Any", cls)) if field.init}, types_


def _scalar(value: object, annotation: object, origin: object, directory: Path | None) -> object:
    """Return a value of a type that has no parts.

    Raises:
        WrongValueError: if it is not of the type.
    """
    if origin is Any or origin is object:
        return value
    if origin is Secret:
        return _secret(value)
    if isinstance(value, Secret):
        raise WrongValueError(f"must be {describe(annotation)}; a secret cannot be used here")
    if origin in _SCALARS:
        return _SCALARS[origin](value)
    if origin in _IMPORTED:
        return _imported(value, annotation, directory)
    if origin is typing.Literal:
        return read_literal(get_args(annotation), value)
    return _of_type(value, annotation, origin)


def _of_type(value: object, annotation: object, origin: object) -> object:
    if is_enum(origin):
        return read_enum(origin, value)
    if not isinstance(origin, type) or isinstance(value, origin):
        return value
    raise expected(describe(annotation), value)


def _secret(value: object) -> Secret:
    if isinstance(value, Secret):
        return value
    # The value is not shown: somebody may have put the secret itself here.
    raise WrongValueError('must be a secret: write { env = "NAME" } or { file = "/path/to/it" }')


def _path(value: object) -> Path:
    if isinstance(value, str | Path) and "\0" not in str(value):
        return Path(value)
    raise expected("a path in a string", value)


_IMPORTED: Final[Collection[object]] = (type, Callable)
_SCALARS: Final[Mapping[object, Callable[[object], object]]] = {**PLAIN, Path: _path}


def _imported(value: object, annotation: object, directory: Path | None) -> object:
    """Return the class or function that a string names; one that is given as it is passes too."""
    found = _named(value, directory) if isinstance(value, str) else value
    if origin_of(annotation) is not type:
        if callable(found):
            return found
        raise expected("a function", value)
    bound = origin_of((*get_args(annotation), object)[0])
    if isinstance(found, type) and (not isinstance(bound, type) or issubclass(found, bound)):
        return found
    raise expected(f"a class derived from {getattr(bound, '__name__', bound)}", value)


def _named(path: str, directory: Path | None) -> object:
    if ":" not in path and hasattr(builtins, path):
        return getattr(builtins, path)
    try:
        return import_object(path, directory=directory)
    except NotImportableError as error:
        raise WrongValueError(str(error)) from error


def _refused(
    cls: type[object], fields: Mapping[str, attrs.Attribute[Any]], values: Mapping[str, object]
) -> list[tuple[str, str]]:
    """Run the validators of single fields, and return the key and text of each that refuses.

    They get an object that is filled as far as there are values, since attrs stops at the first that refuses.
    """
    draft = object.__new__(cls)
    for key, field in fields.items():
        if key in values:
            object.__setattr__(draft, field.name, _converted(field, values[key]))
    faults: list[tuple[str, str]] = []
    for key, field in fields.items():
        if key in values and field.validator is not None:
            try:
                field.validator(draft, field, getattr(draft, field.name))
            except AttributeError:
                # It looked at a field that is itself wrong or left to its default.
                continue
            except Exception as exc:  # noqa: BLE001 -- as above
                faults.append((key, field_and_text(exc)[1]))
    return faults


def _converted(field: attrs.Attribute[Any], value: object) -> object:
    converter: object = cast("Any", field).converter
    if not callable(converter) or isinstance(converter, attrs.Converter):
        return value
    try:
        return converter(value)
    except Exception:  # noqa: BLE001 -- building the object reports it
        return value


def _ignore(at: At, text: str) -> None:
    """Take a problem of a union's option that is only tried."""
