"""Puts the method, header and body frames of one message together; one for each channel."""

from __future__ import annotations

import enum
import struct
from typing import Final, final

import attrs
from pamqp import commands

from .errors import FRAME_ERROR, SYNTAX_ERROR, UNEXPECTED_FRAME, TooDeepError, ViolationError
from .events import Delivered, Returned, TooLarge
from .messages import Deliver
from .properties import Properties, decode_properties
from .text import readable

Message = Delivered | TooLarge | Returned

_BASIC: Final = 60
_HEADER_BYTES: Final = 12
_header: Final = struct.Struct(">HHQ").unpack_from


class Expected(enum.Enum):
    """Which frame of a message comes next."""

    METHOD = "method"
    HEADER = "header"
    BODY = "body"


_METHOD: Final = Expected.METHOD
_HEADER: Final = Expected.HEADER
_BODY: Final = Expected.BODY


@final
@attrs.define(eq=False, repr=False)
class Assembly:
    """The message of a channel that is under way."""

    _channel: int
    """Number of the channel, which its events name."""
    _max_bytes: int
    expected: Expected = _METHOD
    _deliver: Deliver | None = None
    _returned: commands.Basic.Return | None = None
    _properties: Properties | None = None
    """None: the message is skipped."""
    _size: int = 0
    _got: int = 0
    _body: bytearray = attrs.field(factory=bytearray)

    def deliver(self, method: Deliver) -> None:
        """Take the method that begins a message for a consumer."""
        self._deliver = method
        self.expected = _HEADER

    def returned(self, method: commands.Basic.Return) -> None:
        """Take the method that begins a message that comes back; its body is not kept."""
        self._returned = method
        self.expected = _HEADER

    def header(self, data: bytes, at: int, end: int) -> Message | None:
        """Take the payload of a header frame; return the message if it has no body.

        Raises:
            ViolationError: if it is malformed, or none is expected.
        """
        if self.expected is not _HEADER:
            raise ViolationError(UNEXPECTED_FRAME, "the peer sent a header frame where none can be")
        if end - at <= _HEADER_BYTES:
            raise ViolationError(SYNTAX_ERROR, "the peer sent a header frame that is too short")
        class_id, weight, size = _header(data, at)
        if class_id != _BASIC or weight:
            raise ViolationError(SYNTAX_ERROR, "the peer sent a header frame of another class")
        self._size = size
        self._properties = self._read_properties(data, at + _HEADER_BYTES, end)
        if size:
            self.expected = _BODY
            return None
        return self._finish(b"")

    def _read_properties(self, data: bytes, at: int, end: int) -> Properties | None:
        if self._deliver is None:
            return decode_properties(data, at, end)
        try:
            properties = decode_properties(data, at, end)
        except TooDeepError:
            return None
        return properties if self._size <= self._max_bytes else None

    def body(self, data: bytes, at: int, end: int) -> Message | None:
        """Take the payload of a body frame; return the message if it is complete.

        Raises:
            ViolationError: if none is expected, or it is empty or too long.
        """
        if self.expected is not _BODY:
            raise ViolationError(UNEXPECTED_FRAME, "the peer sent a body frame where none can be")
        if end - at == self._size and not self._got:
            return self._finish(data[at:end])
        self._got += end - at
        if self._got > self._size or at == end:
            raise ViolationError(FRAME_ERROR, f"the peer sent {self._got} bytes of a body of {self._size}")
        if self._properties is not None and self._deliver is not None:
            self._body += data[at:end]
        return self._finish(bytes(self._body)) if self._got == self._size else None

    def _finish(self, body: bytes) -> Message:
        deliver, properties = self._deliver, self._properties
        self._deliver, self.expected = None, _METHOD
        if self._got:
            self._got, self._body = 0, bytearray()
        if deliver is None:
            return self._finish_returned(properties)
        tag, number, redelivered, exchange, routing_key = deliver
        if properties is None:
            return TooLarge(self._channel, tag, number, redelivered, exchange, routing_key, self._size)
        return Delivered(self._channel, tag, number, redelivered, exchange, routing_key, properties, body)

    def _finish_returned(self, properties: Properties | None) -> Returned:
        method, self._returned = self._returned, None
        assert method is not None, "a message has begun"
        assert properties is not None, "of a message that comes back the properties are kept"
        code, text = method.reply_code or 0, readable(method.reply_text)
        return Returned(self._channel, code, text, method.exchange, method.routing_key or "", properties)
