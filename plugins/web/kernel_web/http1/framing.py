"""What an application answers becomes bytes. Sans I/O.

| state | what the application says | next |
|---|---|---|
| NOTHING | `http.response.start` | HELD: nothing leaves yet, so that the head and the first of the body leave at once |
| HELD | `http.response.body`, more to come or not | STARTED; DONE |
| STARTED | `http.response.body`, more to come or not | STARTED; DONE |
| DONE | anything | DONE, ignored |
"""

from __future__ import annotations

import enum
from http import HTTPStatus
from typing import Any, Final, final

from ..asgi.fields import FIELDS
from ..asgi.own import TEXTS, fields_of

STATUS_LINES: Final = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NOTED: Final = frozenset({b"connection", b"transfer-encoding", b"keep-alive", b"content-length"})
_UPGRADE: Final = b"connection: Upgrade\r\n"
"""Whoever sends the field Upgrade must send this as well, for it is of this connection alone (RFC 9110, 7.8)."""
_NO_CONTENT: Final = 204
_NO_BODY: Final = frozenset({_NO_CONTENT, 304})
_ENDLESS: Final = -1
"""The body goes on until the connection closes."""


class WrongAnswerError(RuntimeError):
    """An application answers what cannot be said in HTTP."""


@final
class Stage(enum.Enum):
    """How far an answer is."""

    NOTHING = "nothing"
    HELD = "held"
    STARTED = "started"
    DONE = "done"


NOTHING, HELD, STARTED, DONE = Stage
"""By names of their own: in an enumeration, a name takes as long to be found as a function to be called."""


@final
class Framing:
    """One answer."""

    __slots__ = ("_chunked", "_is_head", "_left", "_old", "_start", "last", "sent", "stage", "status")

    def __init__(self, method: str, version: str) -> None:
        """Begin an answer to a request of that method and version."""
        self.stage = NOTHING
        self.status = 0
        self.sent = 0
        """Bytes of body."""
        self.last = False
        """The connection closes after it: may be set until it has started."""
        self._is_head = method == "HEAD"
        self._old = version == "1.0"
        self._start: dict[str, Any] = {}
        self._chunked = False
        self._left: int | None = None
        """Bytes of body that are announced and have not come; None if none may be sent."""

    def start(self, message: dict[str, Any]) -> None:
        """Take `http.response.start`.

        Raises:
            WrongAnswerError: if its status cannot be that of an answer.
        """
        status = message["status"]
        if not 200 <= status <= 999:
            raise WrongAnswerError(f"an answer cannot have the status {status}")
        self.status = int(status)
        self._start = message
        self.stage = HELD

    def body(self, data: bytes, *, more: bool, common: bytes) -> bytes:
        """Take `http.response.body`; return what is to be sent.

        Args:
            data: The next bytes of the body.
            more: Whether more will come.
            common: Fields that every answer has, which end with a line end.

        Raises:
            WrongAnswerError: if a header, or the length of the body, is not what it may be. If the answer had started,
                nothing that follows can put it right.
        """
        head = b""
        if self.stage is HELD:
            head = self._head(data, more=more, common=common)
            self.stage = STARTED
        framed = self._framed(data, more=more)
        if not more:
            self.stage = DONE
        return head + framed

    def _framed(self, data: bytes, *, more: bool) -> bytes:
        if self._left is None:
            return b""
        self.sent += len(data)
        if self._chunked:
            end = b"" if more else b"0\r\n\r\n"
            return b"%x\r\n%b\r\n%b" % (len(data), data, end) if data else end
        if self._left != _ENDLESS:
            self._left -= len(data)
            if self._left < 0 or (self._left and not more):
                raise WrongAnswerError("the body is not as long as its Content-Length")
        return data

    def _head(self, data: bytes, *, more: bool, common: bytes) -> bytes:
        block, length = self._fields()
        lines = [block, common]
        if self.status not in _NO_BODY and not self._is_head:
            if length is not None:
                self._left = length
            elif not more:
                self._left = len(data)
                lines.append(b"content-length: %d\r\n" % len(data))
            elif self._old:
                self._left, self.last = _ENDLESS, True
            else:
                self._left, self._chunked = 0, True
                lines.append(b"transfer-encoding: chunked\r\n")
        elif self._is_head and self.status not in _NO_BODY and data and not more and length is None:
            lines.append(b"content-length: %d\r\n" % len(data))
        lines.append(b"connection: close\r\n\r\n" if self.last else b"\r\n")
        return b"".join(lines)

    def _fields(self) -> tuple[bytes, int | None]:
        """Return the status line and the application's own fields, and the length that they announce."""
        fields = tuple(self._start.get("headers", ()))
        try:
            known = _KNOWN.get((self.status, fields))
        except TypeError:  # lists, or what else ASGI allows
            known = None
        if known is None:
            known = _read(self.status, fields)
            _remember(self.status, fields, known)
        block, length, closes = known
        self.last = self.last or closes
        return block, length


_Read = tuple[bytes, int | None, bool]
"""Lines, the length of the body that they announce, and whether the connection is to close."""
_KNOWN: Final[dict[tuple[int, Any], _Read]] = {}
"""What heads say, by what applications say: most say the same again and again."""
_KNOWN_MAX: Final = 128
"""Heads that are remembered."""
_KNOWN_BYTES: Final = 512
"""Bytes of one: what is longer is seldom said twice, as cookies."""


def _remember(status: int, fields: tuple[Any, ...], known: _Read) -> None:
    """Know a head again, if it can be: its names and values must be such that nobody can change them."""
    if len(known[0]) <= _KNOWN_BYTES and all(type(field) is tuple and _is_frozen(*field) for field in fields):
        if len(_KNOWN) >= _KNOWN_MAX:
            _KNOWN.clear()
        _KNOWN[status, fields] = known


def _is_frozen(*parts: object) -> bool:
    return all(type(part) is bytes for part in parts)


def _read(status: int, fields: tuple[Any, ...]) -> _Read:
    """Return what a head says.

    Raises:
        WrongAnswerError: if it must not be said.
    """
    lines: list[bytes] = []
    length: int | None = None
    closes = False
    for name, value in fields:
        low = name.lower()
        if low in _NOTED:
            if low != b"content-length":
                closes = closes or b"close" in value.lower()
                continue
            length = _length(value, length)
            if status == _NO_CONTENT:
                continue
        lines.append(b"%b: %b\r\n" % (low, value))
        if low == b"upgrade":
            lines.append(_UPGRADE)
    block = b"".join(lines)
    if FIELDS.fullmatch(block) is None:
        raise WrongAnswerError("a header of the answer is not allowed")
    return (STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status) + block, length, closes


def _length(value: bytes, before: int | None) -> int:
    if before is not None or not value.isdigit():
        raise WrongAnswerError("the Content-Length of the answer is not one number")
    return int(value)


def own_answer(status: int, common: bytes, *, is_last: bool, is_head: bool = False) -> bytes:
    """Return an answer of the dispatcher's own.

    Args:
        status: What to say.
        common: Fields that every answer has, which end with a line end.
        is_last: Whether the connection closes after it.
        is_head: Whether the request was a HEAD, so that the body is left out.
    """
    lines = [
        STATUS_LINES[status],
        common,
        *[b"%b: %b\r\n" % field for field in fields_of(status)],
        b"upgrade: websocket\r\n" + _UPGRADE if status == HTTPStatus.UPGRADE_REQUIRED else b"",
        b"connection: close\r\n\r\n" if is_last else b"\r\n",
        b"" if is_head else TEXTS[status],
    ]
    return b"".join(lines)
