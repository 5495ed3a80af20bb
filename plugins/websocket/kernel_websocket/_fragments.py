"""Counts the frames of a message, which trio-websocket keeps one by one until the last has come, empty ones too."""

from __future__ import annotations

from typing import Final, final

MOST: Final = 16_384
"""Frames of one message: enough for a mebibyte in pieces of 64 bytes."""
_END_OF_HEAD: Final = b"\r\n\r\n"
_FINAL: Final = 0x80
_CONTROL: Final = 0x08


@final
class Fragments:
    """Looks at what a peer sends, however it is cut: the head of a handshake, then frames. Source: RFC 6455, 5.2."""

    __slots__ = ("_header", "_is_open", "_skip", "count")

    def __init__(self) -> None:
        self._header = bytearray()
        """What has come of the head of the handshake, or of a frame."""
        self._is_open = False
        """Whether the handshake is over."""
        self._skip = 0
        """Bytes of a frame that have yet to come."""
        self.count = 0
        """Frames of a message that has not ended."""

    def feed(self, data: bytes | bytearray) -> None:
        """Take what has come. What is malformed is for others to see."""
        at = 0 if self._is_open else self._after_head(data)
        while at < len(data):
            if self._skip:
                taken = min(self._skip, len(data) - at)
                self._skip -= taken
                at += taken
            else:
                self._header.append(data[at])
                at += 1
                self._take_header()

    def _after_head(self, data: bytes | bytearray) -> int:
        kept = len(self._header)
        self._header += data
        end = self._header.find(_END_OF_HEAD)
        if end < 0:
            del self._header[: -len(_END_OF_HEAD) + 1]
            return len(data)
        self._header.clear()
        self._is_open = True
        return end + len(_END_OF_HEAD) - kept

    def _take_header(self) -> None:
        header = self._header
        if len(header) < 2:
            return
        size = header[1] & 0x7F
        more = {126: 2, 127: 8}.get(size, 0)
        if len(header) < 2 + more:
            return
        self._skip = (int.from_bytes(header[2:], "big") if more else size) + (4 if header[1] & 0x80 else 0)
        if not header[0] & _CONTROL:
            self.count = 0 if header[0] & _FINAL else self.count + 1
        header.clear()
