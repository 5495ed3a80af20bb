"""Cuts what arrives into frames, however it was sliced; each byte is copied a bounded number of times."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, final

import attrs

from .errors import FRAME_ERROR, NOT_IMPLEMENTED, ViolationError

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEARTBEAT: Final = 8
END: Final = 0xCE
OVERHEAD: Final = 8
"""Bytes of a frame beside its payload: type, channel, size, end."""

Frame = tuple[int, int, bytes, int, int]
"""Type, channel, and where the payload is: data, begin, end."""

_VERSION: Final = b"AMQP"
"""How the answer of a broker that speaks another version begins; the version follows. Source: AMQP 0-9-1, 4.2.2."""
_KINDS: Final = frozenset({METHOD, HEADER, BODY, HEARTBEAT})
ADDED: Final = 64 * 1024
"""Bytes that a header frame may have beyond what was agreed: RabbitMQ notes deaths in the headers of a message that
filled its frame, and sends them in one all the same. Who took that for a violation would be sent it again for ever."""
_head: Final = struct.Struct(">BHI").unpack_from


@final
@attrs.define(eq=False, repr=False)
class FrameReader:
    """Cuts what arrives into frames."""

    frame_max: int
    """Bytes of the largest frame that is taken; of a header frame, `ADDED` more."""
    _rest: bytearray = attrs.field(factory=bytearray, init=False)
    """The beginning of a frame that is not complete."""
    _needed: int = attrs.field(default=0, init=False)
    """Bytes that have to be there before it is worth looking again."""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete with `data`; to be used to the end before it is called again.

        Raises:
            ViolationError: if a frame is of an unknown type, too large, or not ended as it must be.
        """
        data = bytes(data)  # which copies only what is no `bytes`
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        at, length = 0, len(data)
        while length - at >= OVERHEAD:
            kind, channel, size = _head(data, at)
            if kind not in _KINDS:
                raise _unknown(data, at)
            if size + OVERHEAD > self.frame_max and (kind != HEADER or size > self.frame_max + ADDED):
                raise ViolationError(FRAME_ERROR, f"the peer sent a frame with {size} bytes, beyond what was agreed")
            begin = at + 7
            end = begin + size
            if end >= length:
                self._needed = size + OVERHEAD
                break
            if data[end] != END:
                raise ViolationError(FRAME_ERROR, "the peer sent a frame that is longer than it said")
            yield kind, channel, data, begin, end
            at = end + 1
        else:
            self._needed = OVERHEAD
        self._keep(data, at)

    def _keep(self, data: bytes, at: int) -> None:
        if at < len(data):
            if data[at] not in _KINDS and not _VERSION.startswith(data[at : at + 4]):
                raise _unknown(data, at)
            self._rest += data[at:]


def _unknown(data: bytes, at: int) -> ViolationError:
    """Return what is wrong with what begins like no frame; a broker that speaks another version says which."""
    if data[at : at + 4] != _VERSION:
        return ViolationError(FRAME_ERROR, f"the peer sent a frame of the unknown type {data[at]}")
    version = ".".join(str(number) for number in data[at + 4 : at + 8])
    return ViolationError(NOT_IMPLEMENTED, f"the peer does not speak AMQP 0-9-1, but {version}")
