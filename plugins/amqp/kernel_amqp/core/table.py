"""Field tables: the typed dicts of AMQP, to plain Python and back, bounded in depth.

    wire    t     b B s u I i l L   f d     D         S     x       T          V     A      F
    Python  bool  int               float   Decimal   str   bytes   datetime   None  list   dict

An integer is written with 32 bits if it fits and with 64 if not, a float with 64. A string that is not UTF-8 is read as
bytes, and a time that `datetime` does not have as its number of seconds: what another program put there must not hurt.
What was read can be written, but for a float that is no finite number: RabbitMQ closes the connection for one. A time is
read with a sign, as programs write those before 1970 whose times have one.
Source: AMQP 0-9-1, 4.2.5.5, with the types of https://www.rabbitmq.com/amqp-0-9-1-errata.html.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from .errors import SYNTAX_ERROR, EncodingError, TooDeepError, ViolationError
from .text import LONGEST_SHORT, decode_text, encode_text, short_string

MAX_DEPTH: Final = 32
"""How deep tables and arrays may nest, in both directions."""

Decoder = Callable[[bytes, int], tuple[object, int]]
"""Takes data and position; returns the value and the position after it, which may be beyond the table's end."""
Encoder = Callable[[Any, int], bytes]
"""Takes the value and the depth that is left; returns the type and the value."""

_LENGTH: Final = struct.Struct(">I")
_length: Final = _LENGTH.unpack_from
_INT32: Final = 1 << 31
_INT64: Final = 1 << 63
_DECIMAL_DIGITS: Final = 10
_SHOWN: Final = 128
"""Bits of an integer that an error shows."""


def encode_table(table: Mapping[str, object], depth: int = MAX_DEPTH) -> bytes:
    """Return a table with its length before it.

    Raises:
        EncodingError: if a value has no place on the wire, or it nests deeper than `depth`.
    """
    if depth <= 0:
        raise EncodingError(f"a table nests deeper than {MAX_DEPTH}")
    parts: list[bytes] = []
    key = ""
    try:
        for key, value in table.items():
            parts.extend((short_string(key), (_ENCODERS.get(type(value)) or _encoder(value))(value, depth)))
    except EncodingError as error:
        raise error if depth < MAX_DEPTH else EncodingError(f'"{key!s:.60}": {error}') from error
    data = b"".join(parts)
    return _LENGTH.pack(len(data)) + data


def _encode_array(values: Sequence[object], depth: int) -> bytes:
    if depth <= 1:
        raise EncodingError(f"an array nests deeper than {MAX_DEPTH}")
    data = b"".join([(_ENCODERS.get(type(value)) or _encoder(value))(value, depth - 1) for value in values])
    return b"A" + _LENGTH.pack(len(data)) + data


def _encode_nested(value: Mapping[str, object], depth: int) -> bytes:
    return b"F" + encode_table(value, depth - 1)


def _encode_str(value: str, _depth: int) -> bytes:
    data = encode_text(value)
    return b"S" + _LENGTH.pack(len(data)) + data


def _encode_bytes(value: bytes, _depth: int) -> bytes:
    return b"x" + _LENGTH.pack(len(value)) + value


def _encode_bool(value: bool, _depth: int) -> bytes:  # noqa: FBT001  it is the value
    return b"t\x01" if value else b"t\x00"


def _encode_int(value: int, _depth: int) -> bytes:
    if -_INT32 <= value < _INT32:
        return struct.pack(">ci", b"I", value)
    if -_INT64 <= value < _INT64:
        return struct.pack(">cq", b"l", value)
    raise EncodingError(f"{value if value.bit_length() < _SHOWN else 'an integer'} does not fit into 64 bits")


def _encode_float(value: float, _depth: int) -> bytes:
    if not math.isfinite(value):  # RabbitMQ closes the connection for it, and everybody else's messages with it
        raise EncodingError(f"{value!r} is no number that RabbitMQ takes")
    return struct.pack(">cd", b"d", value)


def _encode_none(_value: None, _depth: int) -> bytes:
    return b"V"


def _encode_decimal(value: Decimal, _depth: int) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or len(digits) > _DECIMAL_DIGITS:
        raise EncodingError(f"{value!s:.60} does not fit: a decimal has 32 bits and at most 255 places")
    if not -LONGEST_SHORT <= exponent <= _DECIMAL_DIGITS:
        raise EncodingError(f"{value!s:.60} does not fit: a decimal has 32 bits and at most 255 places")
    number = int("".join(map(str, digits))) * 10 ** max(exponent, 0) * (-1 if sign else 1)
    if not -_INT32 <= number < _INT32:
        raise EncodingError(f"{value!s:.60} does not fit: a decimal has 32 bits and at most 255 places")
    return struct.pack(">cBi", b"D", max(-exponent, 0), number)


def _encode_datetime(value: datetime, _depth: int) -> bytes:
    if value.tzinfo is None:
        raise EncodingError(f"{value} has no time zone")
    return struct.pack(">cq", b"T", math.floor(value.timestamp()))


# The order counts for derived classes: a bool is an int.
_ENCODERS: Final[dict[type, Encoder]] = {
    str: _encode_str,
    bool: _encode_bool,
    int: _encode_int,
    float: _encode_float,
    bytes: _encode_bytes,
    bytearray: _encode_bytes,
    Decimal: _encode_decimal,
    datetime: _encode_datetime,
    type(None): _encode_none,
    list: _encode_array,
    tuple: _encode_array,
    dict: _encode_nested,
    Mapping: _encode_nested,
}


def _encoder(value: object) -> Encoder:
    """Return the encoder of a value whose class is derived from one of the plain ones."""
    for kind, encoder in _ENCODERS.items():
        if isinstance(value, kind):
            return encoder
    raise EncodingError(f"AMQP has no type for {type(value).__name__}")


def decode_table(data: bytes, at: int, end: int, depth: int = MAX_DEPTH) -> tuple[dict[str, object], int]:
    """Return the table at a position, and the position after it.

    Args:
        data: Where the table is.
        at: Position of its length.
        end: Position that nothing of it may pass.
        depth: How deep it may nest.

    Raises:
        TooDeepError: if it nests deeper.
        ViolationError: if it is malformed.
    """
    try:
        return _decode_table(data, at, end, depth)
    except (IndexError, struct.error):
        raise ViolationError(SYNTAX_ERROR, "a table ends in the middle of a field") from None


def _decode_table(data: bytes, at: int, end: int, depth: int) -> tuple[dict[str, object], int]:
    if depth <= 0:
        raise TooDeepError(SYNTAX_ERROR, f"a table nests deeper than {MAX_DEPTH}")
    at, stop = _extent(data, at, end)
    table: dict[str, object] = {}
    while at < stop:
        begin = at + 1
        at = begin + data[at]
        key = decode_text(data[begin:at])
        table[key], at = _value(data, at, stop, depth)
    return table, at


def _decode_array(data: bytes, at: int, end: int, depth: int) -> tuple[list[object], int]:
    if depth <= 1:
        raise TooDeepError(SYNTAX_ERROR, f"an array nests deeper than {MAX_DEPTH}")
    at, stop = _extent(data, at, end)
    values: list[object] = []
    while at < stop:
        value, at = _value(data, at, stop, depth - 1)
        values.append(value)
    return values, at


def _extent(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return where the content of a table or array begins, and where it ends."""
    stop = at + 4
    if stop <= end:
        stop += _length(data, at)[0]
    if stop > end:
        raise ViolationError(SYNTAX_ERROR, "a table is longer than what it is in")
    return at + 4, stop


def _value(data: bytes, at: int, stop: int, depth: int) -> tuple[object, int]:
    if at >= stop:
        raise ViolationError(SYNTAX_ERROR, "a table ends before the value of a field")
    kind = data[at]
    decoder = _DECODERS.get(kind)
    if decoder is None:
        return _nested(kind, data, at + 1, stop, depth)
    value, at = decoder(data, at + 1)
    if at > stop:
        raise ViolationError(SYNTAX_ERROR, "a field is longer than the table it is in")
    return value, at


def _nested(kind: int, data: bytes, at: int, stop: int, depth: int) -> tuple[object, int]:
    if kind == _TABLE:
        return _decode_table(data, at, stop, depth - 1)
    if kind == _ARRAY:
        return _decode_array(data, at, stop, depth)
    raise ViolationError(SYNTAX_ERROR, f"a table has a field of the unknown type {kind:#04x}")


def _decode_str(data: bytes, at: int) -> tuple[object, int]:
    begin = at + 4
    end = begin + _length(data, at)[0]
    try:
        return data[begin:end].decode(), end
    except UnicodeDecodeError:
        return data[begin:end], end


def _decode_bytes(data: bytes, at: int) -> tuple[object, int]:
    begin = at + 4
    end = begin + _length(data, at)[0]
    return data[begin:end], end


def _decode_bool(data: bytes, at: int) -> tuple[object, int]:
    return data[at] != 0, at + 1


def _decode_decimal(data: bytes, at: int) -> tuple[object, int]:
    places, number = struct.unpack_from(">Bi", data, at)
    return Decimal(f"{number}E-{places}"), at + 5


def _decode_datetime(data: bytes, at: int) -> tuple[object, int]:
    (seconds,) = struct.unpack_from(">q", data, at)
    try:
        return datetime.fromtimestamp(seconds, UTC), at + 8
    except (ValueError, OverflowError, OSError):
        return seconds, at + 8


def _decode_none(_data: bytes, at: int) -> tuple[object, int]:
    return None, at


def _number(form: str) -> Decoder:
    plan = struct.Struct(form)
    unpack, size = plan.unpack_from, plan.size

    def decode(data: bytes, at: int) -> tuple[object, int]:
        return unpack(data, at)[0], at + size

    return decode


_TABLE: Final = ord("F")
_ARRAY: Final = ord("A")
_DECODERS: Final[dict[int, Decoder]] = {
    ord("S"): _decode_str,
    ord("t"): _decode_bool,
    ord("b"): _number(">b"),
    ord("B"): _number(">B"),
    ord("s"): _number(">h"),
    ord("u"): _number(">H"),
    ord("I"): _number(">i"),
    ord("i"): _number(">I"),
    ord("l"): _number(">q"),
    ord("L"): _number(">q"),
    ord("f"): _number(">f"),
    ord("d"): _number(">d"),
    ord("D"): _decode_decimal,
    ord("T"): _decode_datetime,
    ord("V"): _decode_none,
    0: _decode_none,
    ord("x"): _decode_bytes,
}
