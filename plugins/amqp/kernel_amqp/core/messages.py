"""The frequent frames, by hand: deliver, header, body, publish, ack, nack."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from .errors import SYNTAX_ERROR, EncodingError, ViolationError
from .properties import Properties, encode_properties
from .reader import END, OVERHEAD
from .text import decode_text, short_string

DELIVER: Final = b"\x00\x3c\x00\x3c"
RETURN: Final = b"\x00\x3c\x00\x32"
ACK: Final = b"\x00\x3c\x00\x50"
NACK: Final = b"\x00\x3c\x00\x78"
HEARTBEAT_FRAME: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"

LONGEST: Final = 2**64 - 1
"""The highest delivery tag."""

Deliver = tuple[str, int, bool, str, str]
"""Consumer tag, delivery tag, redelivered, exchange, routing key."""

_BASIC: Final = 60
_END: Final = bytes((END,))
_FRAME: Final = struct.Struct(">BHI")
_BODY: Final = struct.Struct(">BBHI")
"""The end of the frame before, and the beginning of a body frame."""
_HEADER: Final = struct.Struct(">BHIHHQ")
_SETTLE: Final = struct.Struct(">BHIHHQBB")
_settle: Final = _SETTLE.pack
_REQUEUE: Final = 2
"""The bit of basic.nack; the first one means several deliveries."""
_tag: Final = struct.Struct(">QB").unpack_from
_HEADER_BYTES: Final = 12
"""Class, weight and size of the body, before the properties."""


def decode_deliver(data: bytes, at: int, end: int) -> Deliver:
    """Return the fields of basic.deliver; `at` is behind its class and method.

    Raises:
        ViolationError: if they are malformed.
    """
    tag_at = at + 1 + data[at]
    if tag_at + 11 > end:
        raise ViolationError(SYNTAX_ERROR, "the fields of Basic.Deliver do not fill its frame exactly")
    delivery_tag, redelivered = _tag(data, tag_at)
    exchange, routing_key = _two_names(data[tag_at + 9 : end])
    return _name(data[at + 1 : tag_at]), delivery_tag, redelivered & 1 == 1, exchange, routing_key


# The same few consumers, exchanges and routing keys come again and again: they are looked up, and not made each time.
@lru_cache(maxsize=256)
def _name(data: bytes) -> str:
    return decode_text(data)


@lru_cache(maxsize=512)
def _two_names(data: bytes) -> tuple[str, str]:
    middle = 1 + data[0]
    if middle >= len(data) or middle + 1 + data[middle] != len(data):
        raise ViolationError(SYNTAX_ERROR, "the fields of Basic.Deliver do not fill its frame exactly")
    return decode_text(data[1:middle]), decode_text(data[middle + 1 :])


def decode_settle(data: bytes, at: int, end: int) -> tuple[int, bool]:
    """Return number and `multiple` of basic.ack or basic.nack; `at` is behind class and method.

    Raises:
        ViolationError: if they are malformed.
    """
    if at + 9 != end:
        raise ViolationError(SYNTAX_ERROR, "the fields of Basic.Ack or Basic.Nack do not fill its frame exactly")
    number, bits = _tag(data, at)
    return number, bits & 1 == 1


def encode_frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return a frame around its payload."""
    return _FRAME.pack(kind, channel, len(payload)) + payload + _END


def encode_ack(channel: int, delivery_tag: int, *, multiple: bool) -> bytes:
    """Return the frame of basic.ack.

    Raises:
        EncodingError: if no delivery can have this tag.
    """
    try:
        return _settle(1, channel, 13, _BASIC, 80, delivery_tag, multiple, END)
    except struct.error:
        raise _no_tag(delivery_tag) from None


def encode_nack(channel: int, delivery_tag: int, *, requeue: bool) -> bytes:
    """Return the frame that refuses one delivery: basic.nack to give it back, basic.reject to put it aside.

    RabbitMQ 4.3 takes a basic.reject that gives back for a failed attempt, and counts it; a basic.nack it does not.

    Raises:
        EncodingError: if no delivery can have this tag.
    """
    try:
        if requeue:
            return _settle(1, channel, 13, _BASIC, 120, delivery_tag, _REQUEUE, END)
        return _settle(1, channel, 13, _BASIC, 90, delivery_tag, False, END)  # noqa: FBT003  a bit of the frame
    except struct.error:
        raise _no_tag(delivery_tag) from None


def _no_tag(delivery_tag: int) -> EncodingError:
    return EncodingError(f"no delivery has the tag {delivery_tag!r:.40}")


@lru_cache(maxsize=1024)
def _publish_method(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:  # noqa: FBT001  cached
    names = short_string(exchange) + short_string(routing_key)
    return encode_frame(1, channel, b"\x00\x3c\x00\x28\x00\x00" + names + bytes((mandatory,)))


def encode_message(
    channel: int,
    *,
    exchange: str,
    routing_key: str,
    mandatory: bool,
    properties: Properties,
    body: bytes,
    frame_max: int,
) -> list[bytes]:
    """Return the frames of a message, in pieces that belong together; the body is not copied if it fits one frame.

    Raises:
        EncodingError: if a value has no place on the wire, or the properties do not fit one frame.
    """
    fields = encode_properties(properties)
    size, room = len(body), frame_max - OVERHEAD
    if len(fields) > room - _HEADER_BYTES:
        raise EncodingError(f"the properties have {len(fields)} bytes; one frame has room for {room - _HEADER_BYTES}")
    method = _publish_method(channel, exchange, routing_key, mandatory)
    head = _HEADER.pack(2, channel, len(fields) + _HEADER_BYTES, _BASIC, 0, size)
    if 0 < size <= room:
        return [method, head, fields, _BODY.pack(END, 3, channel, size), body, _END]
    pieces = [method, head, fields, _END]
    for at in range(0, size, room):
        part = body[at : at + room]
        pieces += (_FRAME.pack(3, channel, len(part)), part, _END)
    return pieces
