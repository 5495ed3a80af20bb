"""Values that are equal if their fields are, without methods of their own for that.

attrs writes and compiles `==` and `hash` for each class anew, which takes half of the time that it takes to make one, at
every start; of most of these classes nobody ever compares an object.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from typing_extensions import override


class ByFields:
    """A base of classes of attrs with `eq=False`: equal is what is of one class and has equal fields."""

    __slots__ = ()

    @override
    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(one == another for one, another in zip(_compared(self), _compared(other), strict=True))

    @override
    def __hash__(self) -> int:
        return hash((type(self), *_compared(self)))


def _compared(value: object) -> Iterator[object]:
    fields: tuple[attrs.Attribute[object], ...] = attrs.fields(type(value))  # type: ignore[arg-type]
    return (getattr(value, field.name) for field in fields if field.eq)
