"""Bytes -> frames, strictly, in bounded space; the verdict is the same however the bytes are cut.

A body whose length is told is taken in one piece, so that a large one costs no more than its copies.
"""

from __future__ import annotations

import re
from typing import Final, final

import attrs

from .frames import OLD, PLAIN, Frame, Limits
from .quick import read_plain, read_quickly

_LF: Final = 10
_CR: Final = 13
_KEPT: Final = 64 * 1024
"""Bytes that may lie before what is parsed next, until they are thrown away in one go."""
_ESCAPED: Final = re.compile(r"\\(.?)", re.DOTALL)
_MEANINGS: Final = {"\\": "\\", "n": "\n", "c": ":", "r": "\r"}


_NUL: Final = "there is a NUL before the end of the headers"
_NAMING: Final = frozenset({"ack", "content-length", "destination", "message-id", "subscription"})
"""Headers of a MESSAGE without which it could not be put aside, nor passed over."""


class StompError(ValueError):
    """What came is no STOMP, or more than allowed; the connection is of no use any more."""


@final
@attrs.define(eq=False, repr=False)
class Parser:
    """Takes what comes from one side of a connection."""

    commands: frozenset[str]
    """Those that this side may send."""
    limits: Limits = attrs.field(factory=Limits)
    version: str = "1.2"
    """As agreed; until then, the frames that agree are the same in each."""
    _buffer: bytearray = attrs.field(factory=bytearray, init=False)
    _at: int = attrs.field(default=0, init=False)
    """Where what is parsed next begins."""
    _seen: int = attrs.field(default=0, init=False)
    """Up to where no end was found."""
    _head: tuple[str, dict[str, str], int] | None = attrs.field(default=None, init=False)
    """Command, headers, and bytes of the body, or -1, of a frame whose body comes."""
    _flaw: str = attrs.field(default="", init=False)
    """Why the headers of the frame whose body comes cannot be read, if they cannot."""
    _skipped: int = attrs.field(default=0, init=False)
    """Bytes of the body that comes, if it is too large."""
    _missing: int = attrs.field(default=0, init=False)
    """Bytes that are still to be skipped of a body that is too large."""
    _error: StompError | None = attrs.field(default=None, init=False)

    def feed(self, data: bytes | bytearray) -> None:
        """Take what has come; `next_frame` tells what it means."""
        if self._missing:
            skipped = min(self._missing, len(data))
            self._missing -= skipped
            data = data[skipped:]
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """Return the next frame; None if more has to come for it.

        Raises:
            StompError: if it is none; from then on always.
        """
        if self._error is not None:
            raise StompError(str(self._error))
        if self._missing:
            return None
        if self._head is None and self._seen <= self._at:  # what has been looked at in vain is not looked at again
            quick = read_quickly(self._buffer, self._at, self.commands, self.limits)
            if quick is not None:
                self._move(quick[1])
                return quick[0]
        try:
            return self._next()
        except StompError as error:
            self._error = error
            self._buffer.clear()
            raise

    def _next(self) -> Frame | None:
        if self._head is None and not self._read_head():
            return None
        assert self._head is not None
        command, headers, size = self._head
        if size > self.limits.body:
            self._skip(size)
            size = 0
            self._head = command, headers, size
        end = self._at + size if size >= 0 else self._find_nul()
        if self._missing or not self._at <= end < len(self._buffer):
            return None
        return self._finish(command, headers, end)

    def _finish(self, command: str, headers: dict[str, str], end: int) -> Frame:
        """Return the frame whose body begins here and ends before the NUL at `end`."""
        if self._buffer[end]:
            raise StompError("a body is not followed by a NUL: content-length is wrong")
        frame = Frame(command, headers, bytes(memoryview(self._buffer)[self._at : end]), self._skipped, self._flaw)
        self._head, self._skipped, self._flaw = None, 0, ""
        self._move(end + 1)
        return frame

    def _find_nul(self) -> int:
        """Return where a body without a length ends; -1 if that has not come."""
        end = self._buffer.find(0, max(self._seen, self._at))
        size = (end if end >= 0 else len(self._buffer)) - self._at
        if size > self.limits.body:
            raise StompError(f"a body without content-length has more than {self.limits.body} bytes")
        self._seen = len(self._buffer)
        return end

    def _skip(self, size: int) -> None:
        """Throw away a body that is too large: what there is of it, and the rest as it comes."""
        there = min(size, len(self._buffer) - self._at)
        self._skipped, self._missing = size, size - there
        self._move(self._at + there)

    def _read_head(self) -> bool:
        """Read command and headers; return whether all of them were there."""
        if not self._skip_beats():
            return False
        end, body = self._find_end()
        begin = self._at
        limit = end if end >= 0 else len(self._buffer)
        # A message has been written by anybody: what he did must not end the connection of who takes it.
        is_message = self._buffer.startswith((b"MESSAGE\n", b"MESSAGE\r"), begin)
        most = self.limits.head + (self.limits.body if is_message else 0)
        if limit - begin > most + (0 if end >= 0 else 3):
            raise StompError(f"command and headers have more than {most} bytes")
        if not is_message and self._buffer.find(0, begin, limit) >= 0:
            raise StompError(_NUL)
        if end < 0:
            self._seen = max(begin, len(self._buffer) - 2)
            return False
        self._head = self._read_lines(self._buffer[begin:end])
        self._move(body)
        return True

    def _skip_beats(self) -> bool:
        """Skip the line ends between frames, which are heart-beats; return whether anything else is there."""
        buffer, at, size = self._buffer, self._at, len(self._buffer)
        if at < size and buffer[at] > _CR:
            return True
        while at < size and buffer[at] in (_LF, _CR):
            if buffer[at] == _CR:
                if self.version == OLD or (at + 1 < size and buffer[at + 1] != _LF):
                    raise StompError("a carriage return stands alone between frames")
                if at + 1 == size:
                    break
                at += 1
            at += 1
        is_there = at < size and buffer[at] != _CR
        if at != self._at:
            self._move(at)
        return is_there

    def _find_end(self) -> tuple[int, int]:
        """Return where the headers end and where the body begins; -1 if that has not come."""
        start = max(self._seen, self._at)
        plain = self._buffer.find(b"\n\n", start)
        limit = plain + 1 if plain >= 0 else len(self._buffer)
        # Most have no carriage return, and to look for one byte takes a tenth of the time.
        may_be_long = self.version != OLD and self._buffer.find(_CR, start, limit) >= 0
        long = self._buffer.find(b"\n\r\n", start, limit) if may_be_long else -1
        return (long, long + 3) if long >= 0 else (plain, plain + 2)

    def _read_lines(self, head: bytearray) -> tuple[str, dict[str, str], int]:
        try:
            return self._read_whole(head)
        except StompError as error:
            named = self._read_names(head)
            if "message-id" not in named:
                raise
            self._flaw = str(error)
            return "MESSAGE", named, _length(named)

    def _read_names(self, head: bytearray) -> dict[str, str]:
        """Return what names a message whose headers cannot be read; nothing of any other frame."""
        command, *lines = head.decode(errors="replace").split("\n")
        end = "" if self.version == OLD else "\r"
        named: dict[str, str] = {}
        for line in lines if command.removesuffix(end) == "MESSAGE" else ():
            key, _, value = line.removesuffix(end).partition(":")
            if key in _NAMING and len(value) < self.limits.line:
                named.setdefault(key, self._unescaped(value))
        return named

    def _read_whole(self, head: bytearray) -> tuple[str, dict[str, str], int]:
        if len(head) > self.limits.head:
            raise StompError(f"command and headers have more than {self.limits.head} bytes")
        if 0 in head:
            raise StompError(_NUL)
        try:
            text = head.decode()
        except UnicodeDecodeError:
            raise StompError("command and headers are no UTF-8") from None
        lines = text.split("\n")
        if "\r" in text and self.version != OLD:
            lines = [line.removesuffix("\r") for line in lines]
            if any("\r" in line for line in lines):
                raise StompError("a carriage return stands in a line")
        if lines[0] not in self.commands:
            raise StompError(f"{lines[0][:20]!r} is no command of this side")
        is_long = len(text) > self.limits.line and len(max(lines, key=len)) > self.limits.line
        if len(lines) > self.limits.headers + 1 or is_long:
            raise StompError("a frame has too many headers, or too long a one")
        command = lines.pop(0)
        headers = self._read_headers(lines, escaped="\\" in text and command not in PLAIN)
        return command, headers, _length(headers)

    def _read_headers(self, lines: list[str], *, escaped: bool) -> dict[str, str]:
        if not escaped and (plain := read_plain(lines)) is not None:
            return plain
        headers: dict[str, str] = {}
        for line in lines:
            key, colon, value = line.partition(":")
            if not (colon and key):
                raise StompError("a header has no name or no colon")
            if escaped:
                key, value = self._unescaped(key), self._unescaped(value)
            headers.setdefault(key, value)  # of those that are repeated the first counts
        return headers

    def _unescaped(self, text: str) -> str:
        def meaning(match: re.Match[str]) -> str:
            if match[1] not in _MEANINGS or (match[1] == "r" and self.version == OLD):
                raise StompError(f"a header has the escape {match[0]!r}, which means nothing")
            return _MEANINGS[match[1]]

        return _ESCAPED.sub(meaning, text) if "\\" in text else text

    def _move(self, to: int) -> None:
        """Go on at another place; what lies before it is done."""
        if to >= len(self._buffer):
            self._buffer.clear()
            to = 0
        elif to > _KEPT:
            del self._buffer[:to]
            to = 0
        self._at = self._seen = to


def _length(headers: dict[str, str]) -> int:
    text = headers.get("content-length")
    if text is None:
        return -1
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise StompError("content-length is no number of bytes")
    return int(text)
