"""Values that are equal if their fields are, and show these, without methods of their own for that.

attrs writes and compiles `==`, `hash` and `repr` for each class anew, which takes two thirds of the time that it takes to
make one, at every start; of most of these classes nobody ever compares or prints an object.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from typing_extensions import override


class ByFields:
    """A base of classes of attrs with `eq=False, repr=False`: equal is what is of one class and has equal fields."""

    __slots__ = ()

    @override
    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(one == another for one, another in zip(_compared(self), _compared(other), strict=True))

    @override
    def __hash__(self) -> int:
        return hash((type(self), *_compared(self)))

    @override
    def __repr__(self) -> str:
        name = type(self).__qualname__.rpartition(">.")[2]
        return f"{name}({', '.join(_shown(self))})"


def _compared(value: object) -> Iterator[object]:
    fields: tuple[attrs.Attribute[object], ...] = attrs.fields(type(value))  # type: ignore[arg-type]
    return (getattr(value, field.name) for field in fields if field.eq)


def _shown(value: object) -> Iterator[str]:
    fields: tuple[attrs.Attribute[object], ...] = attrs.fields(type(value))  # type: ignore[arg-type]
    return (f"{field.name}={getattr(value, field.name)!r}" for field in fields if field.repr)
