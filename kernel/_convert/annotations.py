"""Looking at type annotations: what stands around a type, and which types are unions, arrays and tables.

Knows no values and no policies; see `compiler` for what becomes of a type.
"""

from __future__ import annotations

import collections
import collections.abc
import enum
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, cast, get_args, get_origin

UNIONS: Final[frozenset[object]] = frozenset({typing.Union, types.UnionType})
TABLES: Final[Mapping[object, Callable[[dict[object, object]], object]]] = {
    dict: dict,
    collections.abc.Mapping: dict,
    collections.abc.MutableMapping: dict,
    collections.OrderedDict: collections.OrderedDict,
    collections.defaultdict: lambda items: collections.defaultdict(None, items),
    collections.Counter: lambda items: collections.Counter(cast("dict[object, int]", items)),
}
"""What a table becomes, by the type that is asked for."""
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
    collections.deque: collections.deque,
}
"""What an array becomes, by the type that is asked for."""
_QUALIFIERS: Final = frozenset({"Required", "NotRequired", "ReadOnly", "Final", "ClassVar"})


def plain_type(annotation: object) -> object:
    """Return a type without `Annotated`, `NewType`, `Required` and `type` aliases around it."""
    while (inner := peeled(annotation)) is not annotation:
        annotation = inner
    return annotation


def peeled(annotation: object) -> object:
    """Return a type without the outermost of what `plain_type` takes away, or the type itself."""
    if get_origin(annotation) is typing.Annotated or qualifier_of(annotation):
        return get_args(annotation)[0]
    if isinstance(annotation, typing.NewType):
        return annotation.__supertype__
    return alias_value(annotation) if is_alias(annotation) else annotation


def qualifier_of(annotation: object) -> str:
    """Return `Required`, `NotRequired`, `ReadOnly`, `Final` or `ClassVar` if that is the outermost of a type."""
    name: str = getattr(get_origin(annotation), "_name", None) or ""
    return name if name in _QUALIFIERS else ""


def qualifiers(annotation: object) -> frozenset[str]:
    """Return all of those that stand around a type."""
    found: set[str] = set()
    while get_origin(annotation) is typing.Annotated or qualifier_of(annotation):
        found.add(qualifier_of(annotation))
        annotation = get_args(annotation)[0]
    return frozenset(found)


def is_alias(annotation: object) -> bool:
    """Return whether a type is one that `type X = ...` made, with arguments or without."""
    return type(origin_of(annotation)).__name__ == "TypeAliasType"


def is_enum(annotation: object) -> typing.TypeGuard[type[enum.Enum]]:
    """Return whether a type is an enumeration."""
    return isinstance(annotation, type) and issubclass(annotation, enum.Enum)


def alias_value(annotation: object) -> object:
    """Return what such an alias stands for."""
    value: Any = cast("Any", origin_of(annotation)).__value__
    return value[get_args(annotation)] if get_args(annotation) else value


def origin_of(annotation: object) -> object:
    """Return the class of a generic type (`list` of `list[int]`), or the type itself."""
    return get_origin(annotation) or annotation


def dotted(cls: object) -> str:
    """Return `module.Name` of a class; empty if it is none."""
    # Python 3.13 has put `pathlib` into a module within itself.
    return f"{cls.__module__.removesuffix('._local')}.{cls.__qualname__}" if isinstance(cls, type) else ""


def loaded(module: str) -> Any:  # noqa: ANN401  a module
    """Return a module that is imported already, or None: a type of it can only be asked for if it is."""
    return sys.modules.get(module)


def fixed_items(annotation: object) -> tuple[object, ...] | None:
    """Return the item types of a tuple of fixed length; None for all other arrays."""
    arguments = get_args(annotation)
    if get_origin(annotation) is not tuple or annotation is typing.Tuple or arguments[1:] == (...,):  # noqa: UP006
        return None
    return arguments


class NotUnderstoodError(TypeError):
    """A type is not on the list of those that are understood, or cannot be made out."""

    def __init__(self, what: str, why: str = "") -> None:
        super().__init__(f"{what}: {why}" if why else what)
        self.what = what
        self.why = why


def hints_of(cls: type[object]) -> dict[str, Any]:
    """Return the types of the fields of a class, nothing of them left as a string.

    Raises:
        NotUnderstoodError: if one cannot be resolved.
    """
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception as error:  # evaluates the user's annotations
        raise NotUnderstoodError(f"the types of {cls.__qualname__} cannot be resolved", str(error)) from error
