"""A frame as nearly all are, read in one go: whole, with no carriage return and no escape but that of a colon.

Whatever is otherwise is left to the parser, whose verdict this never differs from.
"""

from __future__ import annotations

from typing import Final

from .frames import PLAIN, Frame, Limits

_SMALL: Final = 4096
"""Bytes of a body that are copied twice."""


def read_quickly(buffer: bytearray, begin: int, commands: frozenset[str], limits: Limits) -> tuple[Frame, int] | None:
    """Return the frame that begins there, and where what follows it does; None if only the parser can tell."""
    while buffer.startswith(b"\n", begin):
        begin += 1
    end = buffer.find(b"\n\n", begin)
    if not 0 <= end - begin <= limits.line or end - begin > limits.head:
        return None
    head = _read_head(buffer[begin:end], commands, limits)
    if head is None:
        return None
    command, headers = head
    length = headers.get("content-length", "")
    size = int(length) if length.isascii() and length.isdecimal() and len(length) <= 12 else len(buffer)
    body, after = end + 2, end + 2 + size
    if size > limits.body or after >= len(buffer) or buffer[after]:
        return None
    # A view saves a copy of what is large, and takes three times as long as that of what is small.
    content = buffer[body:after] if size < _SMALL else memoryview(buffer)[body:after]
    return Frame(command, headers, bytes(content)), after + 1


def _read_head(head: bytearray, commands: frozenset[str], limits: Limits) -> tuple[str, dict[str, str]] | None:
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return None
    command, *lines = text.split("\n")
    if command not in commands or len(lines) > limits.headers or "\r" in text or "\0" in text:
        return None
    headers = read_plain(lines)
    if headers is None or ("\\" in text and command not in PLAIN and not _unescape(headers, text)):
        return None
    return command, headers


def read_plain(lines: list[str]) -> dict[str, str] | None:
    """Return headers without escapes in one go; None if one is repeated or is none."""
    try:
        headers = dict([line.split(":", 1) for line in lines])
    except ValueError:
        return None
    return headers if len(headers) == len(lines) and "" not in headers else None


def _unescape(headers: dict[str, str], text: str) -> bool:
    """Put colons where they were escaped, as ActiveMQ does in its ids; return False if more is, or one of a name."""
    if text.count("\\") != text.count("\\c") or "\\" in "".join(headers):
        return False
    for name, value in headers.items():
        if "\\" in value:
            headers[name] = value.replace("\\c", ":")
    return True
