"""What is asked of a value besides its type: constraints in `Annotated`.

Constraints are those of annotated-types, of pydantic's `Field` and of msgspec's `Meta`, known by the attributes that the
three share, so that none of them is imported. A constraint of theirs that is not understood is an error, not ignored;
what else stands in an annotation is somebody else's.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    return with_keywords(schema, {key: limit for name, limit in limits if (key := _LIMITS[name][2])})


def with_keywords(schema: Schema, extra: Schema) -> Schema:
    """Add keywords to a schema; to those of a union's options, which is where a type stands."""
    if schema.get("type") == "null":
        return schema
    if "anyOf" in schema:
        options = [with_keywords(option, extra) if "type" in option else option for option in schema["anyOf"]]
        return schema | {"anyOf": options}
    items = schema.get("type") == "array"
    return schema | {_ITEMS.get(key, key) if items else key: limit for key, limit in extra.items()}
