"""The properties of a message, to the content of its header frame and back."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, final

import attrs

from .errors import SYNTAX_ERROR, EncodingError, ViolationError
from .table import decode_table, encode_table
from .text import decode_text, encode_short, short_string

_UINT64: Final = struct.Struct(">Q")
_FLAGS: Final = struct.Struct(">H")
_flags: Final = _FLAGS.unpack_from


@final
@attrs.define(eq=False, repr=False)
class Properties:
    """What a message carries besides its body; None means absent.

    Strings have at most 255 bytes. What another program sent as no UTF-8 has surrogates (`surrogateescape`).
    """

    content_type: str | None = None
    content_encoding: str | None = None
    headers: dict[str, object] | None = None
    """Values: str, int, float, bool, None, bytes, Decimal, aware datetime, and lists and dicts of them."""
    delivery_mode: int | None = None
    """1: gone when the broker restarts; 2: persistent."""
    priority: int | None = None
    """0 to 255."""
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    """Milliseconds, as text."""
    message_id: str | None = None
    timestamp: int | None = None
    """Seconds since 1970, as on the wire."""
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None


def encode_properties(properties: Properties) -> bytes:  # noqa: PLR0912  one field after the other: it is hot
    """Return the flags and what they stand for.

    Raises:
        EncodingError: if a value has no place on the wire.
    """
    flags = 0
    parts = [b""]
    if (text := properties.content_type) is not None:
        flags |= 0x8000
        parts.append(short_string(text))
    if (text := properties.content_encoding) is not None:
        flags |= 0x4000
        parts.append(short_string(text))
    if properties.headers is not None:
        flags |= 0x2000
        parts.append(encode_table(properties.headers))
    if (number := properties.delivery_mode) is not None:
        flags |= 0x1000
        parts.append(_octet(number, "delivery_mode"))
    if (number := properties.priority) is not None:
        flags |= 0x0800
        parts.append(_octet(number, "priority"))
    if (text := properties.correlation_id) is not None:
        flags |= 0x0400
        parts.append(encode_short(text))
    if (text := properties.reply_to) is not None:
        flags |= 0x0200
        parts.append(short_string(text))
    if (text := properties.expiration) is not None:
        flags |= 0x0100
        parts.append(short_string(text))
    if (text := properties.message_id) is not None:
        flags |= 0x0080
        parts.append(encode_short(text))
    if (number := properties.timestamp) is not None:
        flags |= 0x0040
        parts.append(_timestamp(number))
    if (text := properties.type) is not None:
        flags |= 0x0020
        parts.append(short_string(text))
    if (text := properties.user_id) is not None:
        flags |= 0x0010
        parts.append(short_string(text))
    if (text := properties.app_id) is not None:
        flags |= 0x0008
        parts.append(short_string(text))
    parts[0] = _FLAGS.pack(flags)
    return b"".join(parts)


@lru_cache(maxsize=512, typed=True)
def _octet(value: int, name: str) -> bytes:
    try:
        return bytes((value,))
    except (ValueError, TypeError):
        raise EncodingError(f"{name} is {value!r:.40}; it must be 0 to 255") from None


def _timestamp(value: int) -> bytes:
    try:
        return _UINT64.pack(value)
    except struct.error:
        raise EncodingError(f"timestamp is {value!r:.40}; it must be whole seconds since 1970") from None


def decode_properties(data: bytes, at: int, end: int) -> Properties:
    """Return the properties between two positions.

    Raises:
        TooDeepError: if their headers nest too deep.
        ViolationError: if they are malformed, or do not end at `end`.
    """
    properties = Properties()
    try:
        (flags,) = _flags(data, at)
        after = _decode_into(properties, flags, data, at + 2, end)
    except (IndexError, struct.error):
        after = -1
    if after != end:
        raise ViolationError(SYNTAX_ERROR, "the properties of a message do not fill their frame exactly")
    return properties


def _decode_into(properties: Properties, flags: int, data: bytes, at: int, end: int) -> int:
    """Set what the flags name; return the position after it, which may be beyond the end."""
    if flags & 0x8000:
        begin, at = at + 1, at + 1 + data[at]
        properties.content_type = decode_text(data[begin:at])
    if flags & 0x4000:
        begin, at = at + 1, at + 1 + data[at]
        properties.content_encoding = decode_text(data[begin:at])
    if flags & 0x2000:
        properties.headers, at = decode_table(data, at, end)
    if flags & 0x1000:
        properties.delivery_mode = data[at]
        at += 1
    if flags & 0x0F00:
        at = _decode_middle(properties, flags, data, at)
    if flags & 0x0080:
        begin, at = at + 1, at + 1 + data[at]
        properties.message_id = decode_text(data[begin:at])
    return _decode_last(properties, flags, data, at) if flags & 0x007F else at


def _decode_middle(properties: Properties, flags: int, data: bytes, at: int) -> int:
    if flags & 0x0800:
        properties.priority = data[at]
        at += 1
    if flags & 0x0400:
        begin, at = at + 1, at + 1 + data[at]
        properties.correlation_id = decode_text(data[begin:at])
    if flags & 0x0200:
        begin, at = at + 1, at + 1 + data[at]
        properties.reply_to = decode_text(data[begin:at])
    if flags & 0x0100:
        begin, at = at + 1, at + 1 + data[at]
        properties.expiration = decode_text(data[begin:at])
    return at


def _decode_last(properties: Properties, flags: int, data: bytes, at: int) -> int:
    if flags & 0x0040:
        (properties.timestamp,) = _UINT64.unpack_from(data, at)
        at += 8
    if flags & 0x0020:
        begin, at = at + 1, at + 1 + data[at]
        properties.type = decode_text(data[begin:at])
    if flags & 0x0010:
        begin, at = at + 1, at + 1 + data[at]
        properties.user_id = decode_text(data[begin:at])
    if flags & 0x0008:
        begin, at = at + 1, at + 1 + data[at]
        properties.app_id = decode_text(data[begin:at])
    return _skip_rest(flags, data, at) if flags & 0x0007 else at


def _skip_rest(flags: int, data: bytes, at: int) -> int:
    """Pass over the property that AMQP 0-9-1 has reserved; it has no others."""
    if flags & 0x0003:
        raise ViolationError(SYNTAX_ERROR, "a message has properties that AMQP 0-9-1 does not have")
    return at + 1 + data[at]
