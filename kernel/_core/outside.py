"""What a manifest says of the outside, checked before anything is opened: addresses and headers; public through `kernel.abc`.

Nothing that was given is shown: there may be a password in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from attrs import Attribute

from .secret import Secret

_UNFIT: Final = re.compile(r"[\x00-\x20\x7f]")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A name of a header. Source: RFC 9110, 5.6.2."""
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
"""Source: RFC 9110, 5.5, without what is neither ASCII nor understood alike everywhere."""


def parse_url(text: str, *schemes: str) -> SplitResult:
    """Return an address that has one of these schemes, a host, and a port if any that there is.

    Raises:
        ValueError: if it is none; says what is wrong, and shows nothing of it.
    """
    begins = " or ".join(f"{scheme}://" for scheme in schemes)
    if _UNFIT.search(text):
        raise ValueError("it has a space, a line break or another character in it that no address has")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"it is no address: write {begins}HOST:PORT, with a port from 1 to 65535") from None
    if parts.scheme not in schemes or not text.partition(":")[2].startswith("//"):
        raise ValueError(f"it must begin with {begins}")
    if not parts.hostname or port == 0:
        raise ValueError("it names no host" if port != 0 else "its port must be from 1 to 65535")
    return parts


def parse_host(
    text: str, *, default_port: int | None = None, lowest: int = 1, forms: str = '"host:port"'
) -> tuple[str, int]:
    """Return host and port of `host:port` or `[ipv6]:port`, or of a host alone where there is a default.

    Args:
        text: What was given. It is shown where it is wrong, but for what may have a password in it.
        default_port: That of a host alone; None asks for one.
        lowest: The lowest port that there is: 0 where the system may choose.
        forms: How to write it, for who has not.

    Raises:
        ValueError: if it is none of these.
    """
    shown = "it" if "@" in text else f'"{repr(text)[1:-1]}"'
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon and default_port is not None:
        host, port = text, str(default_port)
    is_ip6 = host.startswith("[") and host.endswith("]") and ":" in host
    bare = host[1:-1] if is_ip6 else host
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and lowest <= int(port) < 65536
    if not (bare and is_port) or _UNFIT.search(text) or any(char.isspace() or char in "/@" for char in text):
        raise ValueError(f"{shown} must be {forms}; a port is a number from {lowest} to 65535")
    if any(char in "[]" for char in bare) or (":" in bare) != is_ip6:
        example = f"[::1]:{default_port or 8080}"
        raise ValueError(f'{shown} must write an IPv6 address in brackets, and only that: "{example}"')
    return bare, int(port)


def check_http_url(_: object, attribute: Attribute[Any], value: str | Secret | None) -> None:
    """Raise ValueError for what is no address of HTTP; a validator of attrs. None passes."""
    if value is not None:
        try:
            parse_url(value.reveal() if isinstance(value, Secret) else value, "http", "https")
        except ValueError as error:
            raise ValueError(f"'{attribute.name}' must be an address such as http://HOST:PORT/PATH: {error}") from None


def check_http_headers(_: object, attribute: Attribute[Any], headers: Mapping[str, str | Secret]) -> None:
    """Raise ValueError for names and values that no request of HTTP can have; a validator of attrs."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(
                f"'{attribute.name}' has the name {name[:40]!a}: a name is of letters, digits and hyphens, as `x-token`"
            )
        if problem := _wrong_with(value.reveal() if isinstance(value, Secret) else value):
            raise ValueError(f"'{attribute.name}' has a value for `{name}` that cannot be sent: {problem}")


def _wrong_with(value: str) -> str:
    if _VALUE.fullmatch(value):
        return "" if value == value.strip() else "it begins or ends with a space"
    if any(char in value for char in "\r\n"):
        return "there is a line break in it"
    return "it has a control character in it" if value.isascii() else "it must be ASCII, and has other characters in it"
