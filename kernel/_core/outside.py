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
