"""What goes over the channel between a parent and one of its processes: JSON with its length before it, and descriptors.

Only the two that the channel was made for hold its ends, so that nothing on it is from outside.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias, final

import attrs

Frame: TypeAlias = Mapping[str, Any]

MAX_FRAME: Final = 16 << 20
"""Bytes of a frame; what has more is not sent."""
CHUNK: Final = 65_536
"""Bytes that are read at once."""
ANSWERS_WITHIN: Final = 1.0
"""Seconds that a process has to tell what is collected."""
_HEAD: Final = struct.Struct(">I")


def packed(frame: Frame) -> bytes:
    """Return a frame as it is sent.

    Raises:
        ValueError: if it is longer than `MAX_FRAME`.
    """
    body = json.dumps(frame, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME:
        raise ValueError(f"a frame of {len(body)} bytes is longer than {MAX_FRAME}")
    return _HEAD.pack(len(body)) + body


@final
@attrs.define(eq=False, repr=False)
class Unpacker:
    """Makes frames of bytes as they come."""

    _received: bytearray = attrs.field(factory=bytearray, init=False)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are whole now."""
        self._received += data
        while len(self._received) >= _HEAD.size:
            (length,) = _HEAD.unpack_from(self._received)
            if len(self._received) < _HEAD.size + length:
                return
            body = bytes(self._received[_HEAD.size : _HEAD.size + length])
            del self._received[: _HEAD.size + length]
            yield json.loads(body)
