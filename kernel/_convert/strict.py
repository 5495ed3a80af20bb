"""Strict reading of plain values: nothing is coerced, and a wrong value is described in one way everywhere.

Shared by `structure` (the manifest) and `payload` (messages).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from typing import Final, TypeGuard

from .._core.words import shown
from .annotations import one_of


def is_table(value: object) -> TypeGuard[Mapping[str, object]]:
    """Return whether a value is a mapping (with strings as keys, as everything that TOML and JSON say)."""
    return type(value) is dict or isinstance(value, Mapping)  # most are, and to ask an ABC takes long


def is_array(value: object) -> TypeGuard[list[object] | tuple[object, ...]]:
    """Return whether a value is a list or a tuple."""
    return isinstance(value, list | tuple)


class WrongValueError(ValueError):
    """A value is not what it must be; the text says what is allowed."""


def expected(what: str, value: object, *, table: str = "a table") -> WrongValueError:
    """Return the error for a value that is not `what`."""
    return WrongValueError(f"must be {what}, got {shown(value, table=table)}")


def read_bool(value: object) -> bool:
    """Return a bool as it is."""
    if value is True or value is False:
        return value
    raise expected("true or false", value)


def read_int(value: object) -> int:
    """Return an integer as it is; a bool is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise expected("an integer", value)


def read_float(value: object) -> float:
    """Return a number as a float; integers are welcome, bools are not."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    raise expected("a number", value)


def read_str(value: object) -> str:
    """Return a string as it is."""
    if isinstance(value, str):
        return value
    raise expected("a string", value)


def read_datetime(value: object) -> datetime:
    """Return a date with a time of day as it is."""
    if isinstance(value, datetime):
        return value
    raise expected("a date and time", value)


def read_date(value: object) -> date:
    """Return a date as it is; one with a time of day is none."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise expected("a date", value)


def read_time(value: object) -> time:
    """Return a time of day as it is."""
    if isinstance(value, time):
        return value
    raise expected("a time of day", value)


PLAIN: Final[Mapping[object, Callable[[object], object]]] = {
    bool: read_bool,
    int: read_int,
    float: read_float,
    str: read_str,
    datetime: read_datetime,
    date: read_date,
    time: read_time,
}
"""What reads which type."""


def read_enum(cls: type[enum.Enum], value: object) -> enum.Enum:
    """Return the member with a value of the same type (`true` is not `1`), or a member as it is."""
    if isinstance(value, cls):
        return value
    for member in cls:
        if _same(member.value, value):
            return member
    raise expected(one_of([member.value for member in cls]), value)


def read_literal(options: Sequence[object], value: object) -> object:
    """Return a value that is one of the options, `true` not being `1`."""
    for option in options:
        if _same(option, value) or (isinstance(option, enum.Enum) and _same(option.value, value)):
            return option
    raise expected(one_of(options), value)


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other
