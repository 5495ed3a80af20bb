"""The grammar of header fields (RFC 9110, 5), which every version of HTTP shares. Pure."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
# Possessive, and so linear whatever a client sends. Control characters, bare CR or LF and folded lines do not match.
FIELD: Final = rb"%b:[\t\x20-\x7e\x80-\xff]*+\r\n" % TOKEN
FIELDS: Final = re.compile(rb"(?:%b)*+" % FIELD)
is_token: Final = re.compile(TOKEN).fullmatch
is_path: Final = re.compile(rb"/[\x21\x22\x24-\x7e]*+").fullmatch


_HOST: Final = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]++)(?:%25[0-9A-Za-z._~-]++)?\]|[0-9A-Za-z._~!$&'()*+,;=%-]*+)(?::[0-9]{0,5}+)?"
).fullmatch


def is_host(value: bytes) -> bool:
    """Return whether it can be a host and a port (RFC 9110, 7.2), without a user; it may be empty."""
    found = _HOST(value)
    return found is not None and (found[1] is None or _is_address(found[1]))


def _is_address(value: bytes) -> bool:
    try:
        ipaddress.IPv6Address(value.decode())
    except ValueError:
        return False
    return True


def are_sound(fields: list[tuple[bytes, bytes]]) -> bool:
    """Return whether header fields may be sent: no line end, no control character, and names that are names."""
    return FIELDS.fullmatch(b"".join([b"%b: %b\r\n" % field for field in fields])) is not None
