"""The opening of a websocket: what a client must say, and what it is answered. Sans I/O."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Final

Headers = Sequence[tuple[bytes, bytes]]
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
VERSION: Final = b"13"
_WINDOWS: Final = range(9, 16)
"""Bits of a window that zlib can make."""
_ANSWER: Final = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def values(headers: Headers, name: bytes) -> list[bytes]:
    """Return what the headers of a name say, each element of a list by itself."""
    found = b",".join(value for key, value in headers if key == name)
    return [part for part in (part.strip(b" \t") for part in found.split(b",")) if part]


def accept_key(headers: Headers) -> bytes | None:
    """Return the answer to the key of a handshake over HTTP/1.1, None if there is not one right key."""
    keys = [value for name, value in headers if name == b"sec-websocket-key"]
    try:
        if len(keys) != 1 or len(base64.b64decode(keys[0], validate=True)) != 16:
            return None
    except binascii.Error:
        return None
    return base64.b64encode(hashlib.sha1(keys[0] + _GUID).digest())


def refusal(headers: Headers) -> int:
    """Return the status of a handshake that cannot be understood, 0 if it can."""
    versions = [value for name, value in headers if name == b"sec-websocket-version"]
    if versions == [VERSION]:
        return 0
    return 426 if len(versions) == 1 and versions[0].isdigit() else 400


def deflate_window(headers: Headers) -> tuple[int, bytes]:
    """Return the window for compressing, in bits, and how to answer; 0 and nothing if compression is not asked for."""
    for offer in values(headers, b"sec-websocket-extensions"):
        name, *parameters = (part.strip() for part in offer.split(b";"))
        window = _window(parameters) if name == b"permessage-deflate" else 0
        if window:
            return window, _ANSWER + (b"; server_max_window_bits=%d" % window if window < 15 else b"")
    return 0, b""


def _window(parameters: list[bytes]) -> int:
    """Return the window that an offer asks for, 0 if it cannot be met."""
    window = 15
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        bits = value.strip(b'"')
        if name == b"server_max_window_bits":
            window = int(bits) if bits.isdigit() and int(bits) in _WINDOWS else 0
        elif name == b"client_max_window_bits":
            window = window if not value or (bits.isdigit() and 8 <= int(bits) <= 15) else 0
        elif name not in {b"server_no_context_takeover", b"client_no_context_takeover"}:
            return 0
        if not window:
            return 0
    return window
