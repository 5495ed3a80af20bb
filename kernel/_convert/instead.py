"""What to write in a manifest instead of a value of the wrong type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from .._core.words import quoted
from .strict import FromOutside

_NUMBER: Final = re.compile(r"[+-]?(?:0|[1-9]\d{0,17})(?:\.\d+)?")
_INTEGER: Final = re.compile(r"[+-]?(?:0|[1-9]\d{0,17})")
_DURATION: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[a-z]+)")
_UNITS: Final[Mapping[str, float]] = {
    **dict.fromkeys(("ms", "msec", "millis"), 0.001),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
_TRUTHS: Final = {"true": "true", "yes": "true", "on": "true", "1": "true"} | dict.fromkeys(
    ("false", "no", "off", "0"), "false"
)


def instead(words: str, value: object) -> str:
    """Return `; write ...`, or nothing where it is not plain what was meant.

    Args:
        words: What the value must be, as the problem says it.
        value: What it is.
    """
    if isinstance(value, FromOutside):
        return ""  # it stands in no file that anybody writes
    if isinstance(value, str):
        return _of_text(words, value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and words.startswith("a string"):
        return f'; write "{value}", in quotes'
    return "; a table is written { key = value }" if is_number and words == "a table" else ""


def _of_text(words: str, value: str) -> str:
    if "an array" in words and "a string" not in words:
        return f"; write [{quoted(value)}]"
    if words in {"an integer", "a number"}:
        if (_INTEGER if words == "an integer" else _NUMBER).fullmatch(value):
            return f"; write {value}, without quotes"
        if (found := _DURATION.fullmatch(value.lower())) and found["unit"] in _UNITS:
            return f"; write seconds: {float(found['number']) * _UNITS[found['unit']]:.15g}"
    if words == "a table":
        return "; a table is written { key = value }"
    if words == "true or false" and value.lower() in _TRUTHS:
        return f"; write {_TRUTHS[value.lower()]}, without quotes"
    return ""
