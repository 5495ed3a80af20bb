"""The PROXY protocol (HAProxy's specification, versions 1 and 2): who a proxy connects for, before anything else. Sans I/O.

Strict: a proxy that is trusted writes it right, and whatever else comes is not from one.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import Final, final

import attrs

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
BYTES_MAX: Final = 16 + 1024
"""Of a header; version 2 could announce 64 KiB, which nobody needs."""
_LINE_MAX: Final = 107
_LINE: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*+)?|TCP([46]) ([0-9A-Fa-f.:]++) ([0-9A-Fa-f.:]++) ([0-9]{1,5}+) ([0-9]{1,5}+))\r\n"
).fullmatch
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_SIZES: Final = {0x11: 4, 0x21: 16}
"""Of an address, by family: TCP over IPv4, over IPv6."""
_SSL: Final = 0x20
"""The type of the field that says whether the client came over TLS."""


class BrokenIntroductionError(ValueError):
    """What came first is no header of the PROXY protocol."""


@final
@attrs.frozen
class Introduction:
    """For whom a proxy connects."""

    client: tuple[str, int] | None = None
    """None if it connects for itself, or does not say: then what the socket says holds."""
    server: tuple[str, int] | None = None
    """Where the client connected to."""
    is_encrypted: bool = False
    """The client came to the proxy over TLS, as far as that says so."""


def length_of(data: bytes) -> int | None:
    """Return how long the header is that begins with some bytes; None if they do not say yet.

    Raises:
        BrokenIntroductionError: if no header begins so, or it is too long.
    """
    if data.startswith(SIGNATURE):
        size = 16 + int.from_bytes(data[14:16], "big") if len(data) >= 16 else 0
        if size > BYTES_MAX:
            raise BrokenIntroductionError("a header that is too long")
        return size or None
    end = data.find(b"\r\n", 0, _LINE_MAX)
    if data.startswith(b"PROXY ") and end > 0:
        return end + 2
    if (b"PROXY ".startswith(data[:6]) and len(data) < _LINE_MAX and end < 0) or SIGNATURE.startswith(data):
        return None
    raise BrokenIntroductionError("no header of the PROXY protocol")


def parse_introduction(data: bytes) -> Introduction:
    """Return what a whole header says.

    Raises:
        BrokenIntroductionError: if it cannot be understood.
    """
    return _parse_binary(data) if data.startswith(SIGNATURE) else _parse_line(data)


def _parse_line(data: bytes) -> Introduction:
    found = _LINE(data)
    if found is None:
        raise BrokenIntroductionError("a line that says it wrong")
    if found[1] is None:
        return Introduction()
    family, client, server, *ports = (part.decode() for part in found.groups())
    return Introduction(_place(client, family, ports[0]), _place(server, family, ports[1]))


def _place(address: str, family: str, port: str) -> tuple[str, int]:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        parsed = None
    if parsed is None or str(parsed.version) != family or int(port) > 65535:
        raise BrokenIntroductionError("an address that cannot be one")
    return str(parsed), int(port)


def _parse_binary(data: bytes) -> Introduction:
    command, family = data[12], data[13]
    if command not in {_LOCAL, _PROXY}:
        raise BrokenIntroductionError("a version, or a command, that nobody knows")
    size = _SIZES.get(family, 0)
    if command == _LOCAL or not size:
        return Introduction()
    end = 16 + 2 * size + 4
    if len(data) < end:
        raise BrokenIntroductionError("a header that is too short for its addresses")
    ports = struct.unpack("!HH", data[end - 4 : end])
    places = [str(ipaddress.ip_address(data[at : at + size])) for at in (16, 16 + size)]
    return Introduction((places[0], ports[0]), (places[1], ports[1]), _came_encrypted(data[end:]))


def _came_encrypted(fields: bytes) -> bool:
    while len(fields) >= 3:
        kind, size = fields[0], int.from_bytes(fields[1:3], "big")
        if len(fields) < 3 + size:
            raise BrokenIntroductionError("a field that is longer than its header")
        if kind == _SSL and size:
            return bool(fields[3] & 1)
        fields = fields[3 + size :]
    return False
