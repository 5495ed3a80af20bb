"""The rare methods: the classes are those of pamqp, what they look like on the wire is read from their fields."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cache
from itertools import groupby
from typing import Any, Final, TypeVar, cast

from pamqp import base, commands

from .errors import COMMAND_INVALID, SYNTAX_ERROR, EncodingError, ViolationError
from .table import decode_table, encode_table
from .text import decode_text, encode_text, short_string

_KINDS: Final = cast("Mapping[int, type[base.Frame]]", commands.INDEX_MAPPING)
_INDEX: Final = struct.Struct(">I")
_NUMBERS: Final = {
    "octet": struct.Struct(">B"),
    "short": struct.Struct(">H"),
    "long": struct.Struct(">I"),
    "longlong": struct.Struct(">Q"),
}

Field = tuple[str, tuple[str, ...]]
"""The type, and the names that have it: several only for bits, which share an octet."""


FrameT = TypeVar("FrameT", bound=base.Frame)


def with_names(method: FrameT, **names: str) -> FrameT:
    """Put names into a method after it was made: pamqp refuses umlauts, brackets and what is longer than 127.

    RabbitMQ takes every text of at most 255 bytes, which is seen to when the method is written.
    """
    for field, name in names.items():
        setattr(method, field, name)
    return method


def method_name(class_id: int, method_id: int) -> str:
    """Return for example `queue.declare`; empty if there is no such method."""
    kind = _KINDS.get(class_id << 16 | method_id)
    return kind.name.lower() if kind is not None else ""


@cache
def _fields(index: int) -> tuple[Field, ...]:
    kind = _KINDS[index]
    fields: list[Field] = []
    for form, names in groupby(kind.attributes(), kind.amqp_type):
        together = tuple(names)
        fields.extend([(form, together)] if form == "bit" else [(form, (name,)) for name in together])
    return tuple(fields)


def encode_method(method: base.Frame) -> bytes:
    """Return the payload of a method frame.

    Raises:
        EncodingError: if a value has no place on the wire.
    """
    parts = [_INDEX.pack(method.index)]
    for form, names in _fields(method.index):
        values = [getattr(method, name) for name in names]
        try:
            parts.append(_encode_field(form, values))
        except (struct.error, TypeError, AttributeError) as error:
            raise EncodingError(f"{names[0]} of {method.name}: {values[0]!r:.60} is no {form}") from error
    return b"".join(parts)


def _encode_field(form: str, values: list[Any]) -> bytes:
    value = values[0]
    match form:
        case "bit":
            return bytes((sum(bool(bit) << place for place, bit in enumerate(values)),))
        case "shortstr":
            return short_string(value or "")
        case "longstr":
            data = encode_text(value or "")
            return _INDEX.pack(len(data)) + data
        case "table":
            return encode_table(value or {})
        case _:
            return _NUMBERS[form].pack(value or 0)


def decode_method(data: bytes, at: int, end: int) -> base.Frame:
    """Return the method whose frame has its payload between two positions.

    Raises:
        ViolationError: if it is unknown or malformed.
    """
    kind = _KINDS.get(_INDEX.unpack_from(data, at)[0]) if at + 4 <= end else None
    if kind is None:
        raise ViolationError(COMMAND_INVALID, "the peer sent a method that AMQP 0-9-1 does not have")
    method = kind.__new__(kind)  # without its defaults: every field is set from what was sent
    at += 4
    try:
        for form, names in _fields(kind.index):
            at = _decode_field(method, form, names, data, at, end)
    except (IndexError, struct.error):
        at = -1
    if at != end:
        raise ViolationError(SYNTAX_ERROR, f"the fields of {kind.name} do not fill its frame exactly")
    return method


def _decode_field(method: base.Frame, form: str, names: tuple[str, ...], data: bytes, at: int, end: int) -> int:
    """Set one field; return the position after it, which may be beyond the end."""
    match form:
        case "bit":
            for place, name in enumerate(names):
                setattr(method, name, bool(data[at] >> place & 1))
            return at + 1
        case "shortstr":
            begin, at = at + 1, at + 1 + data[at]
            setattr(method, names[0], decode_text(data[begin:at]))
            return at
        case "longstr":
            begin = at + 4
            at = begin + _INDEX.unpack_from(data, at)[0]
            setattr(method, names[0], decode_text(data[begin : min(at, end)]))
            return at
        case "table":
            value, at = decode_table(data, at, end)
            setattr(method, names[0], value)
            return at
        case _:
            plan = _NUMBERS[form]
            setattr(method, names[0], plan.unpack_from(data, at)[0])
            return at + plan.size
