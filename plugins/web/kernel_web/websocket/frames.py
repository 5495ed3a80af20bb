"""The frames of RFC 6455 from a client, and to it. Sans I/O, and strict.

Compression (RFC 7692) keeps nothing from one message to the next, in either direction, and what a message may grow to is
bounded while it is unpacked.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias, final

import attrs

_CONTROL_BYTES: Final = 125
_CODES: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
_SMALL: Final = 512
"""Bytes of a message below which it is not worth compressing."""
_TAIL: Final = b"\x00\x00\xff\xff"
_WHOLE_TEXT: Final = 0x81
_WHOLE: Final = frozenset({_WHOLE_TEXT, 0x82})
"""The first byte of a message in one frame, which is not compressed."""
_SMALL_HEAD: Final = 6
"""Bytes of the head of a frame whose length needs no more than one."""
NO_STATUS: Final = 1005
BROKEN: Final = 1002
NOT_UTF8: Final = 1007
TOO_BIG: Final = 1009
MOST_FRAMES: Final = 16_384
"""Frames in which a message may come, and more if it may have more than 64 bytes for each: empty ones never end."""


@final
class Opcode(enum.IntEnum):
    """What a frame is."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


TEXT: Final = Opcode.TEXT
"""By names of their own: in an enumeration, a name takes as long to be found as a function to be called."""


class BrokenFrameError(Exception):
    """The client broke the protocol; carries the code to close with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@final
@attrs.frozen(repr=False)
class Ping:
    """Is to be answered with the same bytes."""

    payload: bytes


@final
@attrs.frozen(repr=False)
class Pong:
    """Answers a ping."""

    payload: bytes


@final
@attrs.frozen(repr=False)
class Close:
    """The last thing that a client says."""

    code: int
    reason: str


Event: TypeAlias = str | bytes | Ping | Pong | Close
"""A whole message, or a control frame."""


@final
class Frames:
    """What a client sends."""

    __slots__ = (
        "_buffer",
        "_closed",
        "_compressed",
        "_count",
        "_inflates",
        "_kind",
        "_limit",
        "_most_frames",
        "_parts",
        "_size",
    )

    def __init__(self, limit: int, *, inflates: bool) -> None:
        """Begin.

        Args:
            limit: Bytes of one message, also when it is unpacked.
            inflates: Whether messages may be compressed.
        """
        self._limit = limit
        self._most_frames = max(MOST_FRAMES, limit // 64)
        self._inflates = inflates
        self._buffer = bytearray()
        self._kind: int | None = None
        """Of the message whose frames are coming."""
        self._compressed = False
        self._parts = bytearray()
        """What has come of a message whose last frame has not: bytes are all that a frame costs, and an empty one nothing."""
        self._size = 0
        self._count = 0
        """Frames of it: empty ones would come for ever without its growing."""
        self._closed = False

    def feed(self, data: bytes) -> Iterable[Event]:
        """Take bytes, however they are cut, and return what they say, to be gone through at once.

        Raises:
            BrokenFrameError: if the client broke the protocol, now or while what came before is gone through.
        """
        message = self._whole(data)
        return self._each(data) if message is None else (message,)

    def _whole(self, data: bytes) -> str | bytes | None:
        """Return a message that comes alone, whole and small, as most do; None for anything else."""
        size = len(data) - _SMALL_HEAD
        if not 0 <= size <= _CONTROL_BYTES or self._buffer or self._closed or self._kind is not None:
            return None
        first, second = data[0], data[1]
        if first not in _WHOLE or second != 0x80 | size or size > self._limit:
            return None
        payload = _unmasked(data[_SMALL_HEAD:], data[2:_SMALL_HEAD])
        return _text(payload) if first == _WHOLE_TEXT else payload

    def _each(self, data: bytes) -> Iterator[Event]:
        if not self._closed:
            self._buffer += data
        while not self._closed and (frame := self._frame()) is not None:
            event = self._take(*frame)
            if event is not None:
                yield event

    def ignore(self) -> None:
        """Take no more notice of what comes."""
        self._closed = True
        self._buffer.clear()

    def _frame(self) -> tuple[int, bool, bytes] | None:
        """Return the first byte of the next frame, whether it is the last of its message, and its payload."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        size, start = second & 0x7F, 2
        self._check_start(first, second)
        if size > _CONTROL_BYTES:
            start = 4 if size == 126 else 10
            if len(buffer) < start:
                return None
            shortest = 126 if start == 4 else 65536
            size = int.from_bytes(buffer[2:start], "big")
            if size < shortest or size >> 63:
                raise BrokenFrameError(BROKEN, "a length that is not written as it must be")
        if first & 8 == 0 and self._size + size > self._limit:
            raise BrokenFrameError(TOO_BIG, "the message is too big")
        end = start + 4 + size
        if len(buffer) < end:
            return None
        payload = _unmasked(bytes(buffer[start + 4 : end]), bytes(buffer[start : start + 4]))
        del buffer[:end]
        return first & 0x4F, bool(first & 0x80), payload

    def _check_start(self, first: int, second: int) -> None:
        opcode, is_last = first & 0x0F, bool(first & 0x80)
        if opcode not in _OPCODES or not second & 0x80:
            raise BrokenFrameError(BROKEN, "a frame that is not masked, or of no known kind")
        if opcode >= Opcode.CLOSE and (not is_last or second & 0x7F > _CONTROL_BYTES):
            raise BrokenFrameError(BROKEN, "a control frame that is not small and whole")
        if (opcode == Opcode.CONTINUATION) != (self._kind is not None) and opcode < Opcode.CLOSE:
            raise BrokenFrameError(BROKEN, "a message within a message, or the rest of none")
        if first & 0x70 and not (first & 0x70 == 0x40 and self._inflates and opcode in {Opcode.TEXT, Opcode.BINARY}):
            raise BrokenFrameError(BROKEN, "a reserved bit")

    def _take(self, first: int, is_last: bool, payload: bytes) -> Event | None:  # noqa: FBT001  of one frame
        opcode = first & 0x0F
        if opcode >= Opcode.CLOSE:
            return self._control(opcode, payload)
        if opcode != Opcode.CONTINUATION:
            self._kind, self._compressed = opcode, bool(first & 0x40)
        self._size += len(payload)
        self._count += 1
        if self._count > self._most_frames:
            raise BrokenFrameError(TOO_BIG, "the message has too many frames")
        if is_last:
            return self._message(bytes(self._parts) + payload if self._parts else payload)
        self._parts += payload
        return None

    def _control(self, opcode: int, payload: bytes) -> Event:
        if opcode == Opcode.PING:
            return Ping(payload)
        if opcode == Opcode.PONG:
            return Pong(payload)
        self._closed = True
        if not payload:
            return Close(NO_STATUS, "")
        code = int.from_bytes(payload[:2], "big")
        if len(payload) < 2 or not (code in _CODES or 3000 <= code <= 4999):
            raise BrokenFrameError(BROKEN, "a code that nobody may close with")
        return Close(code, _text(payload[2:]))

    def _message(self, data: bytes) -> str | bytes:
        kind, self._kind, self._size, self._count, self._parts = self._kind, None, 0, 0, bytearray()
        if self._compressed:
            data = self._inflated(data)
        return _text(data) if kind == TEXT else data

    def _inflated(self, data: bytes) -> bytes:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            plain = unpacker.decompress(data + _TAIL, self._limit + 1)
        except zlib.error as error:
            raise BrokenFrameError(NOT_UTF8, "the message cannot be unpacked") from error
        if len(plain) > self._limit:
            raise BrokenFrameError(TOO_BIG, "the message is too big once it is unpacked")
        return plain


_OPCODES: Final = frozenset(Opcode)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BrokenFrameError(NOT_UTF8, "text that is not UTF-8") from error


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = mask * (size // 4) + mask[: size % 4]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def frame(opcode: int, payload: bytes, *, window: int = 0) -> bytes:
    """Return a whole message, or a control frame, for a client.

    Args:
        opcode: What it is.
        payload: What it says.
        window: With which size of window (9 to 15) it may be compressed; 0 for not at all.
    """
    first = 0x80 | opcode
    if window and len(payload) >= _SMALL:
        packer = zlib.compressobj(wbits=-window)
        payload = (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]
        first |= 0x40
    size = len(payload)
    if size <= _CONTROL_BYTES:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Return the frame that closes; a reason that is too long is cut."""
    if code == NO_STATUS:
        return frame(Opcode.CLOSE, b"")
    text = reason.encode()[: _CONTROL_BYTES - 2].decode(errors="ignore").encode()
    return frame(Opcode.CLOSE, code.to_bytes(2, "big") + text)
