"""What is asked of a value besides its type: constraints in `Annotated`, and the validators of attrs as a schema.

Constraints are those of annotated-types, of pydantic's `Field` and of msgspec's `Meta`, known by the attributes that the
three share, so that none of them is imported. A constraint of theirs that is not understood is an error, not ignored;
what else stands in an annotation is somebody else's.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias, cast, final

from .._core.words import cut, shown
from .annotations import NotUnderstoodError
from .leaves import Schema
from .strict import WrongValueError

Check: TypeAlias = tuple[str, Any]
"""Name of a limit, and the limit."""


def _is_multiple(value: Any, step: Any) -> bool:  # noqa: ANN401  numbers
    return bool(value % step == 0)


def _satisfies(value: object, func: Callable[[object], object]) -> bool:
    return bool(func(value))


def _matches(value: str, pattern: str) -> bool:
    return re.search(pattern, value) is not None


def _has_zone(value: Any, zone: object) -> bool:  # noqa: ANN401  a datetime or a time
    return (value.tzinfo is not None) is (zone not in {None, False})


_LIMITS: Final[Mapping[str, tuple[Callable[[Any, Any], object], str, str]]] = {
    "gt": (operator.gt, "be more than", "exclusiveMinimum"),
    "ge": (operator.ge, "be at least", "minimum"),
    "lt": (operator.lt, "be less than", "exclusiveMaximum"),
    "le": (operator.le, "be at most", "maximum"),
    "multiple_of": (_is_multiple, "be a multiple of", "multipleOf"),
    "min_length": (lambda value, length: len(value) >= length, "have a length of at least", "minLength"),
    "max_length": (lambda value, length: len(value) <= length, "have a length of at most", "maxLength"),
    "pattern": (_matches, "match", "pattern"),
    "func": (_satisfies, "satisfy", ""),
    "tz": (_has_zone, "have the time zone", ""),
}
_SILENT: Final = frozenset({"strict", "documentation", "unit"})
_OF_PYDANTIC: Final = frozenset({"PydanticGeneralMetadata", "_PydanticGeneralMetadata", "Strict"})
_ITEMS: Final = {"minLength": "minItems", "maxLength": "maxItems"}


@final
class UnknownLimitError(NotUnderstoodError):
    """A constraint of a library that checks it, which is not understood here."""


def limits_in(metadata: Iterable[object]) -> Iterator[Check]:
    """Yield the constraints that stand in an annotation.

    Raises:
        TypeError: if one is not understood.
    """
    for one in metadata:
        module, name = type(one).__module__.partition(".")[0], type(one).__name__
        if getattr(one, "__is_annotated_types_grouped_metadata__", False):
            yield from limits_in(cast("Iterable[object]", one))
        elif module == "pydantic" and name == "FieldInfo":
            yield from _limits_of_field(one)
        elif module in {"annotated_types", "msgspec"} or (module == "pydantic" and name in _OF_PYDANTIC):
            yield from _limits_of(one)
        elif module == "pydantic":
            raise UnknownLimitError(f"{name} is not understood")


def _limits_of_field(field: Any) -> Iterator[Check]:  # noqa: ANN401  of pydantic
    if field.alias is not None or field.validation_alias is not None:
        raise UnknownLimitError("an alias in a Field has no effect outside of a pydantic class")
    yield from limits_in(field.metadata)


def _limits_of(one: object) -> Iterator[Check]:
    given = getattr(one, "__dict__", None) or {name: getattr(one, name) for name in dir(one) if name[0] != "_"}
    for name, limit in given.items():
        if name in _LIMITS and (limit is not None or type(one).__name__ == "Timezone"):
            yield name, limit
        elif limit is not None and name not in _SILENT and type(one).__module__ != "msgspec":
            raise UnknownLimitError(f"{type(one).__name__} is not understood")


def check(value: Any, limits: Iterable[Check]) -> None:  # noqa: ANN401  comparable, or it is refused
    """Hold a value against its limits.

    Raises:
        WrongValueError: naming the limit that it does not keep to.
    """
    for name, limit in limits:
        test, words, _ = _LIMITS[name]
        try:
            keeps = bool(test(value, limit))
        except (TypeError, AttributeError, ArithmeticError):  # a limit for another option of a union, or NaN
            keeps = False
        if not keeps:
            got = len(cast("str", value)) if name.endswith("_length") and hasattr(value, "__len__") else shown(value)
            raise WrongValueError(f"must {words} {_named(limit)}, got {got}")


def _named(limit: object) -> str:
    return cut(str(getattr(limit, "__name__", limit)))


def limited(schema: Schema, limits: Iterable[Check]) -> Schema:
    """Return a schema with limits added to the types that they are of."""
    return _with(schema, {key: limit for name, limit in limits if (key := _LIMITS[name][2])})


def _with(schema: Schema, extra: Schema) -> Schema:
    """Add keywords to a schema; to those of a union's options, which is where a type stands."""
    if schema.get("type") == "null":
        return schema
    if "anyOf" in schema:
        options = [_with(option, extra) if "type" in option else option for option in schema["anyOf"]]
        return schema | {"anyOf": options}
    items = schema.get("type") == "array"
    return schema | {_ITEMS.get(key, key) if items else key: limit for key, limit in extra.items()}


# --- validators of attrs ------------------------------------------------------------------------------------------

_SAYS: Final = tuple(
    (re.compile(pattern, re.DOTALL), keys)
    for pattern, keys in (
        (r"Length of .* must be >= (\d+): .*", ("minLength",)),
        (r"Length of .* must be <= (\d+): .*", ("maxLength",)),
        (r".* must be >= (\S+): .*", ("minimum",)),
        (r".* must be <= (\S+): .*", ("maximum",)),
        (r".* must be > (\S+): .*", ("exclusiveMinimum",)),
        (r".* must be < (\S+): .*", ("exclusiveMaximum",)),
        (r".* must be in ([\[({].*[\])}]) \(got .*", ("enum",)),
        (r".* must be .*above (\d+), .*", ("exclusiveMinimum",)),
        (r".* must be from (\d+) to (\d+), .*", ("minimum", "maximum")),
    )
)
"""What validators say of what they refuse."""
_REGEX: Final = re.compile(r".* must match regex '(.*)' \(.* doesn't\)", re.DOTALL)


class _Long(str):
    """A text that says that it is longer than any."""

    __slots__ = ()

    def __len__(self) -> int:
        return 1 << 31


def validated(schema: Schema, validator: Callable[..., object] | None, field: object) -> Schema:
    """Return the schema of a field with what its validator allows, as far as it says so.

    The validator is asked: given what is beyond every bound, it names the bound. attrs has no other way that is public.
    """
    if validator is None:
        return schema
    for beyond in (-math.inf, math.inf, "", _Long(), "\0"):
        try:
            validator(None, field, beyond)
        except Exception as error:  # noqa: BLE001  somebody's validator, given what it cannot expect
            schema = _with(schema, dict(_said(str(error.args[0]) if error.args else "")))
    return schema


def _said(text: str) -> Iterator[tuple[str, object]]:
    if found := _REGEX.fullmatch(text):
        yield "pattern", f"^(?:{found[1]})$"
    for pattern, keys in _SAYS:
        if found := pattern.fullmatch(text):
            with suppress(ValueError, SyntaxError):  # a bound that is no plain value
                yield from zip(keys, map(_literal, found.groups()), strict=True)
            return


def _literal(text: str) -> object:
    value: object = ast.literal_eval(text)
    return sorted(cast("Iterable[object]", value), key=repr) if isinstance(value, tuple | list | set) else value
