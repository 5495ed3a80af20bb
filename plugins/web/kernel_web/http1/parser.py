"""Bytes from a client become heads and bodies. Sans I/O, and pulled: a request that was sent ahead stays bytes.

`feed` takes bytes, however they are cut; `head` and then `body` are asked until they have nothing more. The verdict on
a stream of bytes is the same for every way of cutting it.

| state | what comes | next |
|---|---|---|
| HEAD | a head without a body | HEAD |
| HEAD | Content-Length; chunked | SIZED; CHUNK_SIZE |
| SIZED | so many bytes | HEAD |
| CHUNK_SIZE | a size; zero | CHUNK_DATA; TRAILERS |
| CHUNK_DATA | so many bytes and a line end | CHUNK_SIZE |
| TRAILERS | fields, which are dropped, and an empty line | HEAD |
| any | anything else | BROKEN: nothing more is read |
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import ClassVar, Final, final

from ..asgi.fields import FIELDS, TOKEN
from .head import CHUNKED, HEAD, LINE, Head, RefusedError

_BARE: Final = re.compile(rb"(?<!\r)\n").search
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,16}+)(?:[ \t]*+;[\t\x20-\x7e\x80-\xff]*+)?+\r\n").match
_ASKED: Final = re.compile(rb"(%b) (/[\x21\x22\x24-\x7e]*+)" % TOKEN).match
_METHOD: Final = re.compile(rb"(%b) " % TOKEN).match
_TAIL_BYTES: Final = 2048
"""Of a head that is kept, to know it again."""
_LINE_BYTES: Final = 1024
"""Of the line before a chunk, extensions included."""
_FRAMING_BYTES: Final = 16 * 1024
_FRAMING_PER_BYTE: Final = 8
"""A body in chunks may have so many bytes around its own, and some more to begin with."""


@final
class State(enum.Enum):
    """What is awaited."""

    HEAD = "head"
    SIZED = "sized"
    CHUNK_SIZE = "chunk size"
    CHUNK_DATA = "chunk data"
    TRAILERS = "trailers"
    BROKEN = "broken"


_HEAD: Final = State.HEAD
"""By a name of its own: in an enumeration, a name takes as long to be found as a function to be called."""


@final
class Parser:
    """The requests of one connection."""

    __slots__ = ("_at", "_buffer", "_framing", "_left", "_limit", "_payload", "_seen", "_tail", "_twin", "state")

    def __init__(self, limit: int) -> None:
        """Begin with a head.

        Args:
            limit: Bytes that the request line, the fields of a head and those after a body may have, each.
        """
        self.state = State.HEAD
        self._limit = limit
        self._buffer = b""
        self._at = 0
        self._seen = 0
        """Where to look on for the end of a head."""
        self._left = 0
        """Bytes of the body, or of the chunk, that have not come."""
        self._payload = 0
        self._framing = 0
        self._tail = b""
        """Of a head that was found to be right, from the blank after its path on."""
        self._twin: Head | None = None
        """What it was read as; the application has another, and may change it. None if none is kept."""

    def feed(self, data: bytes) -> None:
        """Take bytes."""
        self._buffer = self._buffer[self._at :] + data if len(self._buffer) > self._at else data
        self._at = 0

    @property
    def ahead(self) -> int:
        """How many bytes wait to be asked for."""
        return len(self._buffer) - self._at

    def rest(self) -> bytes:
        """Take out what has not been asked for: another protocol goes on from here."""
        rest, self._buffer, self._at = self._buffer[self._at :], b"", 0
        return rest

    def head(self) -> Head | None:
        """Return the next head, or None if it has not come.

        Raises:
            RefusedError: if it never will.
        """
        if self.state is not _HEAD:
            raise RefusedError(400, "the connection is broken")
        while self._buffer.startswith(b"\r\n", self._at):  # RFC 9112, 2.2
            self._at += 2
        if self._at:
            self._buffer, self._at, self._seen = self._buffer[self._at :], 0, 0
        buffer = self._buffer
        if self._twin is not None and not self._seen and (head := self._again(buffer, self._twin)) is not None:
            return head
        end = buffer.find(b"\r\n\r\n", self._seen)
        if end < 0 and not buffer:
            return None
        found = HEAD.match(buffer) if end >= 0 else None
        if found is None or found.end() != end + 4 or end > self._limit:
            self._judge(buffer, end)
            if found is None:
                self._seen = max(0, len(buffer) - 3)
                return None
        return self._begin(found, end + 4)

    def _again(self, buffer: bytes, twin: Head) -> Head | None:
        """Return the next head if all but its method and path is that of the last one; that is what most clients say."""
        asked = _ASKED(buffer)
        end = asked.end() + len(self._tail) if asked is not None else 0
        if asked is None or end > self._limit or not buffer.startswith(self._tail, asked.end()):
            return None
        return self._expect_body(twin.again(asked[1], asked[2]), end)

    def _begin(self, found: re.Match[bytes], end: int) -> Head:
        try:
            head = Head(*found.groups())
        except RefusedError:
            self.state = State.BROKEN
            raise
        method, target, blank = found[1], found[2], found.end(2)
        if target[:1] == b"/" and end - blank <= _TAIL_BYTES:
            self._tail, self._twin = self._buffer[blank:end], head.again(method, target)
        return self._expect_body(head, end)

    def _expect_body(self, head: Head, end: int) -> Head:
        self._at, self._seen = end, 0
        if head.length:
            self._left, self._payload, self._framing = max(0, head.length), 0, 0
            self.state = State.CHUNK_SIZE if head.length == CHUNKED else State.SIZED
        return head

    def forget(self) -> None:
        """Keep nothing of what has been asked for: nobody knows when the client will speak again."""
        if self._twin is not None:
            self._tail, self._twin = b"", None
            self._buffer, self._at = self._buffer[self._at :], 0

    def _judge(self, buffer: bytes, end: int) -> None:
        """Raise a `RefusedError` if what has come cannot become a head, whatever follows.

        Args:
            buffer: From the start of the request line.
            end: Where the empty line begins, -1 if it has not come.
        """
        line = buffer.find(b"\n", 0, self._limit + 2) + 1
        if not line:
            if len(buffer) > self._limit + 1:
                self._break(414, "a request line without an end", _METHOD(buffer))
            return
        asked = LINE.fullmatch(buffer, 0, line)
        if asked is None:
            self._break(400, "no request line")
        block_end = len(buffer) if end < 0 else end + 2
        if _BARE(buffer[line : min(block_end, line + self._limit + 1)]):
            self._break(400, "a line that ends with LF alone", asked)
        if block_end - line > self._limit:
            self._break(431, "too many headers", asked)
        if end >= 0 and FIELDS.fullmatch(buffer, line, end + 2) is None:
            self._break(400, "a header that cannot be one", asked)

    def _break(self, status: int, reason: str, asked: re.Match[bytes] | None = None) -> None:
        """Refuse what comes, and all that follows.

        Args:
            status: What the client is told.
            reason: Why.
            asked: What is known of its request: method, target and version, or the first of them.
        """
        self.state = State.BROKEN
        error = RefusedError(status, reason)
        if asked is not None:
            error.tell(*asked.groups())
        raise error

    def body(self) -> tuple[bytes, bool] | None:
        """Return the next bytes of the body and whether more will come; None if none have come.

        Raises:
            RefusedError: if it is broken.
        """
        if self.state is State.SIZED:
            return self._sized()
        if self.state is State.HEAD:
            return b"", False
        pieces: list[bytes] = []
        while (step := self._STEPS.get(self.state)) is not None and step(self, pieces):
            pass
        more = self._awaits_body()
        return (b"".join(pieces), more) if pieces or not more else None

    def _awaits_body(self) -> bool:
        if self.state is State.BROKEN:
            raise RefusedError(400, "the body is broken")
        return self.state is not State.HEAD

    def _sized(self) -> tuple[bytes, bool] | None:
        data = self._buffer[self._at : self._at + self._left] if self._at or self.ahead > self._left else self._buffer
        self._at += len(data)
        self._left -= len(data)
        if not self._left:
            self.state = State.HEAD
        return (data, self._left > 0) if data else None

    def _chunk_size(self, _pieces: list[bytes]) -> bool:
        """Read the line before a chunk; return whether there was one."""
        found = _CHUNK(self._buffer, self._at)
        if found is None or found.end() - self._at > _LINE_BYTES:
            if self.ahead > _LINE_BYTES or self._buffer.find(b"\n", self._at) >= 0:
                self._break(400, "a chunk without a size")
            return False
        self._framing += found.end() - self._at + 2
        if self._framing > _FRAMING_BYTES + _FRAMING_PER_BYTE * self._payload:
            self._break(400, "chunks that are hardly more than their framing")
        self._at = found.end()
        self._left = int(found[1], 16)
        self.state = State.CHUNK_DATA if self._left else State.TRAILERS
        return True

    def _chunk_data(self, pieces: list[bytes]) -> bool:
        """Read of a chunk what has come; return whether it was all."""
        if self._left:
            data = self._buffer[self._at : self._at + self._left]
            if not data:
                return False
            pieces.append(data)
            self._at += len(data)
            self._left -= len(data)
            self._payload += len(data)
            if self._left:
                return False
        end = self._buffer[self._at : self._at + 2]
        if end != b"\r\n":
            if end not in {b"", b"\r"}:
                self._break(400, "a chunk that is not as long as it said")
            return False
        self._at += 2
        self.state = State.CHUNK_SIZE
        return True

    def _trailers(self, _pieces: list[bytes]) -> bool:
        """Read the fields after the last chunk, which are dropped; return whether they have come."""
        found = FIELDS.match(self._buffer, self._at)
        end = found.end() if found else self._at
        if end - self._at > self._limit:
            self._break(431, "too many trailers")
        rest = self._buffer[end : end + 2]
        if rest == b"\r\n":
            self._at, self.state = end + 2, State.HEAD
            return True
        last = self._at + self._limit + 3
        if self._buffer.find(b"\n", end, last) >= 0 or (len(rest) == 2 and rest[:1] == b"\r"):
            self._break(400, "a trailer that cannot be one")
        if len(self._buffer) >= last:
            self._break(431, "too many trailers")
        return False

    _STEPS: ClassVar[dict[State, Callable[[Parser, list[bytes]], bool]]] = {
        State.CHUNK_SIZE: _chunk_size,
        State.CHUNK_DATA: _chunk_data,
        State.TRAILERS: _trailers,
    }
