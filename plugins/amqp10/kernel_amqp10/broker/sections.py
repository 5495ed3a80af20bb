"""Whether bytes are the sections of a message, each of the size that it says. Pure.

The engine takes what is none for a message without a body: without a look at it, what was cut or is garbage would be
handled as if it were empty. Source: AMQP 1.0, 1.2 (formats of values) and 3.2 (sections of a message).
"""

from __future__ import annotations

from typing import Final

_FIRST, _LAST, _BODY = 0x70, 0x78, frozenset({0x75, 0x76, 0x77})
_FIXED: Final = {4: 0, 5: 1, 6: 2, 7: 4, 8: 8, 9: 16}
"""Upper half of a constructor -> bytes of its value."""
_SIZED: Final = {0xA: 1, 0xB: 4, 0xC: 1, 0xD: 4, 0xE: 1, 0xF: 4}
"""Upper half of a constructor -> bytes of the size that its value begins with."""


def check_sections(data: bytes) -> None:
    """Raise ValueError if this is no message."""
    at, last = 0, _FIRST - 1
    while at < len(data):
        code, at = _code(data, at)
        if not _FIRST <= code <= _LAST or code < last or (code == last and code not in _BODY):
            raise ValueError(f"section {code:#x} has no place at byte {at}")
        at, last = _after_value(data, at), code
    if at != len(data) or not data:
        raise ValueError("it ends in the middle of a section" if data else "it has no section")


def _code(data: bytes, at: int) -> tuple[int, int]:
    """Return which section begins here, and where its value begins."""
    head = data[at : at + 2]
    if head == b"\x00\x53" and at + 2 < len(data):
        return data[at + 2], at + 3
    if head == b"\x00\x80" and at + 10 <= len(data):
        return int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
    raise ValueError(f"no section begins at byte {at}")


def _after_value(data: bytes, at: int) -> int:
    """Return where a value ends, which may be beyond the end of the data."""
    if at >= len(data):
        raise ValueError("a section has no value")
    kind = data[at] >> 4
    if kind in _FIXED:
        return at + 1 + _FIXED[kind]
    if kind not in _SIZED:
        raise ValueError(f"{data[at]:#x} is no constructor of a value, at byte {at}")
    begin = at + 1 + _SIZED[kind]
    return begin + int.from_bytes(data[at + 1 : begin], "big")
