"""PEM without OpenSSL: what is in a file, why nothing is, and until when a certificate is good."""

from __future__ import annotations

import base64
import binascii
import calendar
import math
import re
import time
from collections.abc import Iterator
from typing import Final, final

import attrs

_SEQUENCE: Final = 0x30
_UTC_TIME: Final = 0x17
_VERSION: Final = 0xA0
_HEADER: Final = b"Proc-Type:"
_ENCRYPTED: Final = b"Proc-Type: 4,ENCRYPTED"
_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)-----(.*?)(?:-----END \1-----|(?=-----BEGIN )|\Z)", re.DOTALL)


@final
@attrs.frozen
class Pem:
    """What a file has of one kind."""

    blocks: tuple[bytes, ...] = attrs.field(default=(), repr=False)
    """DER, in the order of the file; of a key, whatever it is encrypted with."""
    is_encrypted: bool = False
    problem: str = ""
    """Why the file is no good, in words that follow its name; empty if nothing is seen."""

    @classmethod
    def of(cls, data: bytes, kind: str) -> Pem:
        """Return what a file has.

        Args:
            data: What the file holds.
            kind: `CERTIFICATE` or `PRIVATE KEY`.
        """
        found = [block for block in _BLOCK.finditer(data) if block[1].endswith(kind.encode())]
        if not found:
            return cls(problem=_why_none(data, kind.lower()))
        problem = next(filter(None, (_why_broken(block, kind.lower()) for block in found)), "")
        if problem:
            return cls(problem=problem)
        is_encrypted = any(b"ENCRYPTED" in block[1] or _ENCRYPTED in block[2] for block in found)
        return cls(() if is_encrypted else tuple(_first(_decoded(block[2]) or b"") for block in found), is_encrypted)


def _why_none(data: bytes, kind: str) -> str:
    none = f"has no PEM {kind} in it"
    if not data.strip():
        return f"is empty: {none}"
    if data[0] == _SEQUENCE and b"-----BEGIN" not in data:
        return f"is DER, and must be PEM: {none}"
    others = sorted({block[1].decode().lower() for block in _BLOCK.finditer(data)})
    return f"{none}, but: {', '.join(others)}" if others else none


def _why_broken(block: re.Match[bytes], kind: str) -> str:
    if not block[0].endswith(b"-----"):
        return f"ends early, in the midst of a {kind}: was it written only half?"
    is_plain = _HEADER not in block[2]
    return (
        f"has a {kind} that cannot be loaded (no base64): is it damaged?" if is_plain and not _decoded(block[2]) else ""
    )


def _decoded(text: bytes) -> bytes | None:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        return None


# --- until when -----------------------------------------------------------------------------------------------------


def expiry_of(certificate: bytes) -> float:
    """Return when a certificate expires, in seconds since 1970; never, if it does not say so. Source: RFC 5280, 4.1.

    Args:
        certificate: DER.
    """
    try:
        (_, outer) = next(_parts(certificate))
        (_, signed) = next(_parts(outer))
        fields = [value for tag, value in _parts(signed) if tag != _VERSION]
        _, (tag, end) = _parts(fields[3])  # after serial number, algorithm and issuer
        written = end.decode()
        if tag == _UTC_TIME:
            written = f"{'19' if written >= '50' else '20'}{written}"
        return calendar.timegm(time.strptime(written, "%Y%m%d%H%M%SZ"))
    except (ValueError, IndexError, StopIteration, OverflowError):
        return math.inf


def _first(der: bytes) -> bytes:
    """Return the first value: behind a certificate that OpenSSL calls trusted stands what for."""
    return der[: _span(der, 0)[1]] if len(der) > 1 else der


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each value."""
    at = 0
    while at < len(der):
        begin, end = _span(der, at)
        yield der[at], der[begin:end]
        at = end


def _span(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of a value begins and ends."""
    length, begin = der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, begin = int.from_bytes(der[begin : begin + size], "big"), begin + size
    return begin, begin + length
