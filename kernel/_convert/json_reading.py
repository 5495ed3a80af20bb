"""From untrusted bytes to a value: JSON as RFC 8259 has it, less what two readers would understand differently.

For every protocol whose bodies are JSON. Knows nothing of envelopes. Everything that is wrong comes out as
`DecodeError`, in one short line of ASCII. orjson reads nearly everything, several times faster than Python's decoder; what
it would read otherwise than it is written, and what it refuses, is left to Python's.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from itertools import accumulate
from typing import Final

import orjson

from ..errors import DecodeError
from .leaves import MAX_DIGITS

JSON_TYPE: Final = "application/json"

_BRACKETS: Final = b"[]{}"
_NO_BRACKETS: Final = bytes(set(range(256)) - set(_BRACKETS))
_STEPS: Final = bytes.maketrans(_BRACKETS, b"\x01\xff\x01\xff")
"""Of each bracket, one deeper or one less, as a signed byte: then a loop of C adds them up."""
_PIECE: Final = 4096
"""Brackets after which to look whether it is too deep."""
_SPACE: Final = b" \t\n\r"
_UNREAD: Final = object()
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_BYTE_ORDER_MARK: Final = "\ufeff"
_BEGINNINGS: Final = frozenset('{["')
_SHOWN: Final = 120
"""Characters of foreign text in an error."""


def read_json(body: bytes, *, content_type: str = "", max_bytes: int, max_depth: int) -> object:
    """Return the value that a body is, whatever bytes it may be.

    Refused besides what is no JSON, since two readers would understand it differently or it could do harm: duplicate
    keys, `NaN` and `Infinity`, numbers that overflow a float, integers of more than 4300 digits, lone surrogates, a
    byte order mark, and anything but UTF-8.

    Args:
        body: The bytes.
        content_type: What they are said to be; empty if nothing is said.
        max_bytes: The longest body.
        max_depth: How many arrays and objects may lie within each other; at most 500.

    Raises:
        DecodeError: if it is none, or one that is refused.
    """
    if content_type and content_type != JSON_TYPE:
        _refuse_other_types(content_type)
    if len(body) > max_bytes:
        raise DecodeError(f"body has {len(body)} bytes, more than max_bytes = {max_bytes}")
    if is_deeper(body, max_depth):
        raise DecodeError(f"body is nested more than max_depth = {max_depth} levels deep")
    value = _read_fast(body)
    return _read(body) if value is _UNREAD else value


def _read_fast(body: bytes) -> object:
    """Return the value as orjson reads it; `_UNREAD` if it refuses it, or if that may not be what is written.

    It drops what a later key repeats, and makes an integer of more than 64 bits a float. What it writes then is another
    text: only a value that gives the same text again, but for space, is certain.
    """
    try:
        value: object = orjson.loads(body)
        again = orjson.dumps(value)
    except (ValueError, TypeError):  # it reads deeper than it writes
        return _UNREAD
    is_certain = again == body or again.translate(None, _SPACE) == body.translate(None, _SPACE)
    return value if is_certain else _UNREAD


def _read(body: bytes) -> object:
    """Return the value as Python's decoder reads it."""
    try:
        text = body.decode()
        value = _parse(text)
        if "\\" in text and _SURROGATE.search(text):
            _refuse_lone_surrogates(value)
    except UnicodeDecodeError as error:
        raise DecodeError(f"body is not UTF-8: {error.reason} at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"body is not JSON: {shown(str(error))}") from error
    return value


def _parse(text: str) -> object:
    value: object
    reader = _READER if len(text) <= MAX_DIGITS else _LONG_READER
    if text[:1] in _BEGINNINGS:  # which is nearly every body: nothing to skip, so nothing to search for
        value, end = reader.raw_decode(text)
        if end == len(text):
            return value
    if text.startswith(_BYTE_ORDER_MARK):
        raise DecodeError("body starts with a byte order mark")
    value = reader.decode(text)
    return value


def _refuse_other_types(content_type: str) -> None:
    essence, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if essence not in {JSON_TYPE, "text/json"} and not essence.endswith("+json"):
        raise DecodeError(f"content type {shown(content_type)} is not JSON")
    charsets = [part.partition("=")[2].strip("\"' ") for part in parameters if part.startswith("charset")]
    if any(charset not in {"utf-8", "utf8", "us-ascii"} for charset in charsets):
        raise DecodeError(f"content type {shown(content_type)} names another charset than UTF-8")


def is_deeper(body: bytes, limit: int) -> bool:
    """Return whether the arrays and objects of a JSON text lie more than so many levels within each other.

    Does not parse: the parser itself is what deep nesting breaks. Takes time in proportion to the body, whatever is
    in it, and looks no further than to where it is too deep; next to none where there are too few brackets for it to
    matter.
    """
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    outside = b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    steps, depth = memoryview(outside.translate(_STEPS, _NO_BRACKETS)).cast("b"), 0
    for at in range(0, len(steps), _PIECE):
        depths = list(accumulate(steps[at : at + _PIECE], initial=depth))
        if max(depths) > limit:
            return True
        depth = depths[-1]
    return False


def shown(text: str) -> str:
    """Return foreign text so that it can stand in a line of a log: ASCII, escaped, cut."""
    escaped = text.encode("ascii", "backslashreplace").decode()
    line = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in escaped)
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _refuse_lone_surrogates(value: object) -> None:
    json.dumps(value, ensure_ascii=False).encode()


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f'key "{twice}" occurs twice in one object')
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer has {len(digits)} digits, more than {MAX_DIGITS}")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


_READER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
"""For texts in which no integer can be too long: to look at each costs more than to read it."""
_LONG_READER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float
)
