"""What plain values are: the tables and arrays of TOML and JSON, and a value that is not what it must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

from .._core.words import shown


def is_table(value: object) -> TypeGuard[Mapping[str, object]]:
    """Return whether a value is a mapping (with strings as keys, as everything that TOML and JSON say)."""
    return type(value) is dict or isinstance(value, Mapping)  # most are, and to ask an ABC takes long


def is_array(value: object) -> TypeGuard[list[object] | tuple[object, ...]]:
    """Return whether a value is a list or a tuple."""
    return isinstance(value, list | tuple)


class WrongValueError(ValueError):
    """A value is not what it must be; the text says what is allowed, if it is more than the type."""


def expected(what: str, value: object, *, table: str = "a table") -> WrongValueError:
    """Return the error for a value that is not `what`."""
    return WrongValueError(f"must be {what}, got {shown(value, table=table)}")
