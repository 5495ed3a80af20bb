"""What plain values are: the tables and arrays of TOML and JSON, and a value that is not what it must be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeGuard, final

from .._core.words import shown


def is_table(value: object) -> TypeGuard[Mapping[str, object]]:
    """Return whether a value is a mapping (with strings as keys, as everything that TOML and JSON say)."""
    return type(value) is dict or isinstance(value, Mapping)  # most are, and to ask an ABC takes long


def is_array(value: object) -> TypeGuard[list[object] | tuple[object, ...]]:
    """Return whether a value is a list or a tuple."""
    return isinstance(value, list | tuple)


_INTEGER: Final = re.compile(r"[+-]?(0|[1-9]\d{0,17})", re.ASCII)
_FLOAT: Final = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d{1,3})?", re.ASCII)


@final
class FromOutside(str):
    """A string that is from outside of the manifest as a whole: where none fits, it may be a number or a boolean."""

    __slots__ = ()

    def readings(self) -> Iterator[str | float | bool]:
        """Yield what it may mean: the string, and what TOML would read."""
        text = str(self)
        yield text
        if text in {"true", "false"}:
            yield text == "true"
        elif _INTEGER.fullmatch(text):
            yield int(text)
        elif _FLOAT.fullmatch(text):
            yield float(text)


class WrongValueError(ValueError):
    """A value is not what it must be; the text says what is allowed, if it is more than the type."""


def expected(what: str, value: object, *, table: str = "a table") -> WrongValueError:
    """Return the error for a value that is not `what`."""
    return WrongValueError(f"must be {what}, got {shown(value, table=table)}")
