"""A URL of a broker, as platforms hand it out -> what the keys of the manifest say. Pure.

Source: RabbitMQ, URI specification and URI query parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

TLS_KEYS: Final = {
    "cacertfile": "ca",
    "certfile": "certificate",
    "keyfile": "key",
    "server_name_indication": "server_name",
}
_SCHEMES: Final = ("amqp", "amqps")


def taken_apart(url: str) -> tuple[dict[str, object], dict[str, object] | None]:
    """Return the keys of the driver that a URL says, and those of its table `tls`; None for no TLS.

    `hosts`, `username`, `password` (as plain text), `virtual_host`, `heartbeat`, `connect_timeout`, `mechanism`.

    Raises:
        ValueError: if it is no such URL; nothing of it is shown.
    """
    parts = _split(url)
    keys: dict[str, object] = {"hosts": (_host(parts),), "virtual_host": unquote(parts.path.removeprefix("/")) or "/"}
    if parts.username:
        keys["username"] = unquote(parts.username)
    if parts.password is not None:
        keys["password"] = unquote(parts.password)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    keys |= dict(_own_keys(query))
    if parts.scheme == "amqp":
        return keys, None
    tls: dict[str, object] = {TLS_KEYS[name]: value for name, value in query.items() if name in TLS_KEYS}
    if "verify" in query:
        tls["verify"] = query["verify"] != "verify_none"
    return keys, tls


def _split(url: str) -> SplitResult:
    if any(char.isspace() or not char.isprintable() for char in url):
        raise ValueError("it has a space, a line break or another character in it that no URL has")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("it is no URL") from None
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.fragment or parts.path.count("/") > 1:
        raise ValueError(
            'it must be "amqp://user:password@host:port/virtual-host", or "amqps://..."; a / in a name is %2F'
        )
    known = {*TLS_KEYS, "verify", "heartbeat", "connection_timeout", "auth_mechanism", "fail_if_no_peer_cert"}
    if unknown := sorted({name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - known):
        raise ValueError(f"its query has `{unknown[0][:40]}`; known are {', '.join(sorted(known))}")
    return parts


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    bare = f"[{host}]" if ":" in host else host
    return bare if parts.port is None else f"{bare}:{parts.port}"


def _own_keys(query: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    try:
        if "heartbeat" in query:
            yield "heartbeat", float(query["heartbeat"])
        if "connection_timeout" in query:
            yield "connect_timeout", float(query["connection_timeout"]) / 1000
    except ValueError:
        raise ValueError("`heartbeat` is in seconds and `connection_timeout` in milliseconds, both numbers") from None
    if "auth_mechanism" in query:
        yield "mechanism", query["auth_mechanism"].upper()
