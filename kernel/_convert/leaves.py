"""The types without parts: what each takes, in words and as JSON Schema, and how its values are written as text.

Strict: nothing is coerced, and `true` is no number. Types that are dear to import, or belong to nobody here, stand in
the tables by name: an annotation can only name what is imported already.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from types import NoneType
from typing import Any, Final, TypeAlias, cast

from .annotations import dotted
from .strict import WrongValueError

MAX_DIGITS: Final = 4300
"""Digits of a number. Source: CPython, integer string conversion length limitation."""
Schema: TypeAlias = dict[str, Any]
Read: TypeAlias = Callable[..., object]
"""Takes a value, and what cattrs gives besides, which nobody looks at."""
Leaf: TypeAlias = tuple[str, Read, Schema]
"""What it takes in words, what reads it, and its schema."""

_DECIMAL: Final = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,5})?"
_DURATION: Final = r"([+-])?P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d{1,6})?)S)?)?"
_WEEK: Final = 7


def read_any(value: object, _: object = None) -> object:
    """Return a value as it is."""
    return value


def read_null(value: object, _: object = None) -> None:
    """Return None, which is the only value."""
    if value is not None:
        raise WrongValueError


def read_bool(value: object, _: object = None) -> bool:
    """Return a bool as it is."""
    if value is True or value is False:
        return value
    raise WrongValueError


def read_int(value: object, _: object = None) -> int:
    """Return an integer as it is; a bool is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise WrongValueError


def read_float(value: object, _: object = None) -> float:
    """Return a number as a float; integers are welcome, bools are not."""
    if type(value) is float:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    raise WrongValueError


def read_str(value: object, _: object = None) -> str:
    """Return a string as it is."""
    if isinstance(value, str):
        return value
    raise WrongValueError


def read_date(value: object, _: object = None) -> date:
    """Return a date as it is; one with a time of day is none."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise WrongValueError


def _instance(cls: type[object]) -> Read:
    def read(value: object, _: object = None) -> object:
        if isinstance(value, cls):
            return value
        raise WrongValueError

    return read


def _from_text(parse: Callable[[str], object], other: Callable[[Any], object]) -> Read:
    def read(value: object, _: object = None) -> object:
        return parse(value) if isinstance(value, str) else other(value)

    return read


def text_reader(cls: type[object]) -> Read:
    """Return what reads a class that makes itself of a string."""
    return _from_text(_path if cls.__module__ == "pathlib" else cls, _instance(cls))


def _path(text: str) -> object:
    from pathlib import Path  # noqa: PLC0415  only called for paths

    if "\0" in text:
        raise WrongValueError
    return Path(text)


def decimal_reader(cls: type[Any]) -> Read:
    """Return what reads `Decimal`: finite numbers in a string, as people write them, and integers."""

    def parse(text: str) -> object:
        made = cls(text) if len(text) <= MAX_DIGITS and re.fullmatch(_DECIMAL, text) else None
        if made is None or abs(made.adjusted()) > MAX_DIGITS:
            raise WrongValueError
        return made

    def other(value: object) -> object:
        if isinstance(value, cls):
            return value
        return cls(read_int(value))

    return _from_text(parse, other)


def bytes_reader(cls: Callable[[Any], object]) -> Read:
    """Return what reads bytes: base64 in a string, or bytes as they are."""

    def other(value: object) -> object:
        if isinstance(value, bytes | bytearray):
            return value if isinstance(value, cast("type[object]", cls)) else cls(value)
        raise WrongValueError

    return _from_text(lambda text: cls(binascii.a2b_base64(text, strict_mode=True)), other)


def _duration(text: str) -> timedelta:
    found = re.fullmatch(_DURATION, text, re.ASCII)
    if found is None or not any(found.groups()[1:]) or text.endswith("T"):
        raise WrongValueError
    weeks, days, hours, minutes = (int(part or 0) for part in found.groups()[1:5])
    whole, _, fraction = (found[6] or "0").partition(".")
    micros = int(fraction.ljust(6, "0"))
    length = timedelta(days=_WEEK * weeks + days, hours=hours, minutes=minutes, seconds=int(whole), microseconds=micros)
    return -length if found[1] == "-" else length


def _seconds(value: object) -> timedelta:
    return value if isinstance(value, timedelta) else timedelta(seconds=read_float(value))


def duration_text(value: timedelta) -> str:
    """Return a length of time as ISO 8601 has it: `P1DT2.5S`; `-PT1S` for what is less than nothing."""
    sign, value = ("-", -value) if value < timedelta() else ("", value)
    seconds = (
        f"{value.seconds}.{value.microseconds:06}".rstrip("0").rstrip(".") if value.microseconds else value.seconds
    )
    days = f"{value.days}D" if value.days else ""
    return f"{sign}P{days}" + (f"T{seconds}S" if value.seconds or value.microseconds or not days else "")


def written(value: object) -> object:
    """Return the plain value that a leaf is written as.

    Raises:
        TypeError: if it is none.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    for cls in type(value).__mro__:
        if (write := _TEXTS.get(dotted(cls))) is not None:
            return write(value)
    raise TypeError


def _decimal_text(value: Any) -> str:  # noqa: ANN401  a `Decimal`
    if not value.is_finite():
        raise ValueError(f"is {value}, which is not a number of JSON")
    return str(value)


_TEXTS: Final[Mapping[str, Callable[[Any], str]]] = {
    "datetime.datetime": datetime.isoformat,
    "datetime.date": date.isoformat,
    "datetime.time": time.isoformat,
    "datetime.timedelta": duration_text,
    **dict.fromkeys(
        ("builtins.bytes", "builtins.bytearray", "builtins.memoryview"),
        lambda value: binascii.b2a_base64(value, newline=False).decode(),
    ),
    "decimal.Decimal": _decimal_text,
    **dict.fromkeys(
        (
            "uuid.UUID",
            "pathlib.PurePath",
            "zoneinfo.ZoneInfo",
            "ipaddress._BaseAddress",
            "ipaddress._BaseNetwork",
        ),
        str,
    ),
}
"""What writes which class, and what is derived from it, as a string."""


def _text(format_: str = "") -> Schema:
    return {"type": "string", "format": format_} if format_ else {"type": "string"}


_PLAIN: Final[Mapping[object, Leaf]] = {
    Any: ("anything", read_any, {}),
    object: ("anything", read_any, {}),
    None: ("null", read_null, {"type": "null"}),
    NoneType: ("null", read_null, {"type": "null"}),
    bool: ("true or false", read_bool, {"type": "boolean"}),
    int: ("an integer", read_int, {"type": "integer"}),
    float: ("a number", read_float, {"type": "number"}),
    str: ("a string", read_str, _text()),
    timedelta: (
        'a length of time: seconds, or a string such as "PT1H30M"',
        _from_text(_duration, _seconds),
        {"type": ["string", "number"]},
    ),
    bytes: ("bytes as base64 in a string", bytes_reader(bytes), _text() | {"contentEncoding": "base64"}),
    bytearray: ("bytes as base64 in a string", bytes_reader(bytearray), _text() | {"contentEncoding": "base64"}),
}
_DATES: Final[Mapping[object, Leaf]] = {
    datetime: ("a date and time", _instance(datetime), _text()),
    date: ("a date", read_date, _text()),
    time: ("a time of day", _instance(time), _text()),
}
IN_MANIFESTS: Final[Mapping[object, Leaf]] = {**_PLAIN, **_DATES}
"""Types of tables: TOML has dates of its own."""
IN_MESSAGES: Final[Mapping[object, Leaf]] = {
    **_PLAIN,
    datetime: ("a date and time", _from_text(datetime.fromisoformat, _instance(datetime)), _text("date-time")),
    date: ("a date", _from_text(date.fromisoformat, read_date), _text("date")),
    time: ("a time of day", _from_text(time.fromisoformat, _instance(time)), _text("time")),
}
"""Types of messages: JSON has strings in place of dates."""
NAMED: Final[Mapping[str, tuple[str, Callable[[type[Any]], Read], Schema]]] = {
    "decimal.Decimal": ("a decimal number in a string", decimal_reader, {"type": ["string", "integer"]}),
    "uuid.UUID": ("a UUID in a string", text_reader, _text("uuid")),
    "pathlib.Path": ("a path in a string", text_reader, _text()),
    "pathlib.PurePath": ("a path in a string", text_reader, _text()),
    "zoneinfo.ZoneInfo": ("the name of a time zone", text_reader, _text()),
    "ipaddress.IPv4Address": ("an IPv4 address", text_reader, _text("ipv4")),
    "ipaddress.IPv6Address": ("an IPv6 address", text_reader, _text("ipv6")),
    "ipaddress.IPv4Network": ("an IPv4 network", text_reader, _text()),
    "ipaddress.IPv6Network": ("an IPv6 network", text_reader, _text()),
    "ipaddress.IPv4Interface": ("an IPv4 address with its network", text_reader, _text()),
    "ipaddress.IPv6Interface": ("an IPv6 address with its network", text_reader, _text()),
}
"""Types by `module.Name`, with what makes their readers."""
EXACT: Final = frozenset({bool, int, float, str})
"""Types whose values are their own JSON: a union that has one needs to look no further."""
