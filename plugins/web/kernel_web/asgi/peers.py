"""Who asks, and for what: hosts that are served, and what a proxy says of the client behind it. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, final

from .fields import TOKEN

Headers = Iterable[tuple[bytes, bytes]]
HOPS_MAX: Final = 32
"""Proxies in a row that are looked at: each costs some microseconds, and a header has room for thousands."""
_SCHEMES: Final = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}


@final
class Hosts:
    """The names that are served."""

    __slots__ = ("_below", "_names", "allows_all")

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(name.lower() for name in names if not name.startswith("*."))
        self._below = tuple(name[1:].lower() for name in names if name.startswith("*."))
        self.allows_all = not names

    def allows(self, headers: Headers) -> bool:
        """Return whether the host that a request names is one of them."""
        host = next((value for name, value in headers if name == b"host"), b"").decode("latin-1").lower()
        bare = host if host.endswith("]") else host.rpartition(":")[0] or host
        return bare in self._names or bare.endswith(self._below)


@final
class Proxies:
    """Those that are believed when they say for whom they ask."""

    __slots__ = ("_networks", "_tell", "_trusts_unix")

    def __init__(self, networks: Sequence[str], headers: str = "x-forwarded") -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks if network != "unix"]
        self._trusts_unix = "unix" in networks
        self._tell = {"x-forwarded": self._told_in_two, "forwarded": self._told_in_one}.get(headers)

    def trusts(self, client: Any) -> bool:  # noqa: ANN401  a pair, or None for a unix socket
        """Return whether a client of a connection is one of them."""
        if client is None:
            return self._trusts_unix
        return bool(self._networks) and self._trusts_address(str(client[0]))

    def _trusts_address(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

    def told(self, headers: Headers) -> dict[str, Any]:
        """Return what a trusted proxy says of the client, as items of a scope.

        The client is the last address that no trusted proxy has: what stands before it was said by somebody else.
        """
        return self._tell(headers) if self._tell is not None else {}

    def _told_in_two(self, headers: Headers) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for element in reversed(_elements(headers, b"x-forwarded-for")[-HOPS_MAX:]):
            if not self._take(element, told):
                break
        schemes = _elements(headers, b"x-forwarded-proto")  # the last alone, for the same reason
        if schemes and schemes[-1].lower() in _SCHEMES:
            told["scheme"] = _SCHEMES[schemes[-1].lower()]
        return told

    def _told_in_one(self, headers: Headers) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for element in reversed(_forwarded(headers)[-HOPS_MAX:]):
            scheme = _SCHEMES.get(element.get(b"proto", b"").lower())
            if scheme is not None:
                told["scheme"] = scheme
            if not self._take(element.get(b"for", b""), told):
                break
        return told

    def _take(self, text: bytes, told: dict[str, Any]) -> bool:
        """Take an address as that of the client; return whether what stands before it is believed as well."""
        address = _bare(text.decode("latin-1"))
        if not _is_address(address):
            return False
        told["client"] = (address, 0)
        return self._trusts_address(address)


_PAIR: Final = re.compile(
    rb'[ \t]*+(?:(%b)=(?:(%b)|"((?:[^"\\]|\\.)*+)"))?+[ \t]*+([;,]|$)' % (TOKEN, TOKEN), re.DOTALL
).match


def _forwarded(headers: Headers) -> list[dict[bytes, bytes]]:
    """Return the elements of `Forwarded` (RFC 7239, 4); nothing if they cannot be understood."""
    text = b",".join(value for key, value in headers if key == b"forwarded")
    elements: list[dict[bytes, bytes]] = [{}]
    at = 0
    while at < len(text):
        found = _PAIR(text, at)
        if found is None:  # a quote may be open, so that nothing in it can be told apart
            return []
        name, token, quoted, end = found.groups()
        if name is not None:
            value = token if token is not None else re.sub(rb"\\(.)", rb"\1", quoted)
            elements[-1].setdefault(name.lower(), value)
        if end == b",":
            elements.append({})
        at = found.end()
    return elements


def _elements(headers: Headers, name: bytes) -> list[bytes]:
    joined = b",".join(value for key, value in headers if key == name)
    return [part for part in (part.strip(b" \t") for part in joined.split(b",")) if part]


def _bare(address: str) -> str:
    """Return an address without brackets and port."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
