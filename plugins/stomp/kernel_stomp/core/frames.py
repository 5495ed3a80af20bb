"""One frame, and how it is written. Pure.

Source: STOMP 1.2, "Augmented BNF" and "Value Encoding"; 1.1 differs in the escape of a carriage return.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, final

import attrs

if TYPE_CHECKING:
    from attrs import frozen as _value
else:
    _value = attrs.define
    """Frozen for type checkers alone, as the kernel's values that each message becomes: to set the fields of a class
    that refuses to be changed takes a third of the time that it takes to read a frame."""

OLD: Final = "1.1"
"""The version before: a carriage return is a character as any other there."""
PLAIN: Final = frozenset({"CONNECT", "CONNECTED"})
"""Frames whose headers are not escaped, so that 1.0 understands them."""


class FrameError(ValueError):
    """A frame cannot be written: something of it has no place in STOMP."""


@final
@attrs.frozen(kw_only=True)
class Limits:
    """What a frame may have, at most."""

    headers: int = 256
    line: int = 64 * 1024
    """Characters of one header, and of the command."""
    head: int = 256 * 1024
    """Bytes of command and headers together."""
    body: int = 16 * 1024 * 1024
    """Bytes. A larger body whose length is told is skipped; one whose length is not told is an error."""


_WRITTEN: Final = Limits(headers=192, head=224 * 1024)
"""What we send: whoever takes it gets what servers, retries and dead letters add besides."""

_SHORT: Final = 1024
"""Characters of a header that is far from too long, however much of it is escaped."""


@final
@_value(repr=False)
class Frame:
    """One frame of either side."""

    command: str
    headers: Mapping[str, str]
    body: bytes = b""
    skipped: int = 0
    """Bytes of a body that was larger than allowed and was not kept; 0 for every other."""
    flaw: str = ""
    """Why a MESSAGE cannot be read, of which no more is kept than what names it; empty for every other frame."""

    def __repr__(self) -> str:
        return f"<Frame {self.command}, {len(self.headers)} headers, {len(self.body)} bytes>"


def encode(frame: Frame, version: str) -> bytes:
    """Return the bytes of a frame; one with a body says how long that is.

    Raises:
        FrameError: if a header has what this version cannot write: a NUL, and in CONNECT a line feed; or if its headers
        are more than whoever takes it would read.
    """
    lines = [frame.command, *[f"{key}:{value}" for key, value in frame.headers.items()]]
    if not _is_plain("\n".join(lines), len(frame.headers)):
        write = _written_plain if frame.command in PLAIN else _written_old if version == OLD else _written
        lines[1:] = [f"{write(key)}:{write(value)}" for key, value in frame.headers.items()]
    if frame.body or frame.command == "SEND":
        lines.append(f"content-length:{len(frame.body)}")
    try:
        head = "\n".join(lines).encode()
    except UnicodeEncodeError as error:
        raise FrameError("a header has half a character, which UTF-8 cannot write") from error
    if len(head) > _WRITTEN.line or len(lines) > _WRITTEN.headers:
        _check_size(head, lines)
    return b"%b\n\n%b\0" % (head, frame.body)


def encode_ack(message: Frame, version: str) -> bytes:
    """Return the bytes of the acknowledgement of a message, with what `named` says and nothing else.

    Raises: as `encode`.
    """
    name = message.headers.get("ack", "")
    if not name or version == OLD or len(name) > _SHORT:
        return encode(Frame("ACK", named(message)), version)
    return f"ACK\nid:{_written(name)}\n\n\0".encode()


def named(message: Frame) -> dict[str, str]:
    """Return how what settles a message names it: by `ack` in 1.2, by two headers in 1.1."""
    headers = message.headers
    if "ack" in headers:
        return {"id": headers["ack"]}
    return {"message-id": headers.get("message-id", ""), "subscription": headers.get("subscription", "")}


def _is_plain(text: str, headers: int) -> bool:
    """Return whether so many headers, as they are, say what they mean: asked of all of them at once."""
    is_free = "\\" not in text and "\r" not in text and "\0" not in text
    return is_free and text.count("\n") == headers == text.count(":")


def _check_size(head: bytes, lines: list[str]) -> None:
    most = _WRITTEN
    if len(lines) > most.headers:
        raise FrameError(f"it has {len(lines) - 1} headers; fewer than {most.headers} are possible here")
    longest = max(lines, key=len)
    if len(longest) > most.line:
        name = longest.partition(":")[0][:40]
        raise FrameError(f'header "{name}" has {len(longest)} characters; {most.line} are possible here')
    if len(head) > most.head:
        raise FrameError(f"its headers have {len(head)} bytes; {most.head} are possible here")


def _written(text: str) -> str:
    if "\0" in text:
        raise FrameError("a header has a NUL")
    # Four looks at all of it take a third of the time of one look at each character; that of the backslash comes first.
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace(":", "\\c")


def _written_old(text: str) -> str:
    return "\r".join(map(_written, text.split("\r")))


def _written_plain(text: str) -> str:
    if "\n" in text or "\r" in text or "\0" in text:
        raise FrameError("a header of CONNECT has a line break or a NUL")
    return text
