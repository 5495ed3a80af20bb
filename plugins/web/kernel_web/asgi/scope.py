"""The scope of a request: what ASGI says of it, and of the connection that it came over."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote_to_bytes

from ..wire.channel import Channel
from .routes import Route
from .shared import Shared

SPEC_VERSION: Final = "2.3"
"""With 2.4, Starlette no longer listens for the client: a stream that has nothing to say would never learn that it has
left, and keep its slot. `send` raises an `OSError` all the same once the client is gone, as 2.4 asks for."""
_ASGI: Final = {"version": "3.0", "spec_version": SPEC_VERSION}


def connection_scope(
    channel: Channel,
    client: Any,  # noqa: ANN401  as sockets say it
    server: Any,  # noqa: ANN401  as above
    *,
    is_encrypted: bool = False,
) -> dict[str, Any]:
    """Return what is the same for every request of a connection.

    Args:
        channel: The connection.
        client: The address of the other end, as the socket has it.
        server: That of this end.
        is_encrypted: Whether the client came to a proxy over TLS.
    """
    scope: dict[str, Any] = {
        "asgi": _ASGI,
        "scheme": "https" if is_encrypted or channel.tls is not None else "http",
        "client": client[:2] if isinstance(client, tuple) and client else None,
        "server": server[:2] if isinstance(server, tuple) else server and (server, None),
    }
    if channel.tls is not None:
        scope["extensions"] = {"tls": channel.tls.extension()}
    return scope


def split_target(target: bytes) -> tuple[str, bytes, bytes]:
    """Return the decoded path, the path as it was sent, and the query of a target in origin form."""
    path, _, query = target.partition(b"?")
    text = path.decode() if b"%" not in path else unquote_to_bytes(path).decode(errors="replace")
    return text, path, query


def scope_without_route(
    shared: Shared,
    base: dict[str, Any],
    method: str,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    version: str,
) -> dict[str, Any]:
    """Return what is told of a request that no application sees, and of one that is none.

    Args:
        shared: What all connections share.
        base: What `connection_scope` returned.
        method: Of the request; `-` if it could not be read.
        target: The same, as it was sent.
        headers: Those that could be read.
        version: Of HTTP; `-` if it could not be read.
    """
    path, root = target.partition(b"?")[0], shared.config.root_path
    if path[:1] != b"/":
        path = b"-" if b"@" in path else path  # a name and a password may stand before it
    elif root:
        path = root.encode() + path
    scope = {**base, "method": method, "raw_path": path, "headers": headers, "http_version": version}
    if shared.config.trusted_proxies and shared.proxies.trusts(base["client"]):
        scope.update(shared.proxies.told(headers))
    return scope


def request_scope(
    shared: Shared,
    base: dict[str, Any],
    route: Route,
    target: tuple[str, bytes, bytes],
    headers: list[tuple[bytes, bytes]],
    version: str,
) -> dict[str, Any]:
    """Return the scope of a request without its method; `type` is that of a request.

    Args:
        shared: What all connections share.
        base: What `connection_scope` returned.
        route: Of the request.
        target: What `split_target` returned.
        headers: Of the request.
        version: Of HTTP.
    """
    path, raw_path, query = target
    root = shared.config.root_path
    scope = {
        **base,
        "type": "http",
        "http_version": version,
        "path": root + path if root else path,
        "raw_path": root.encode() + raw_path if root else raw_path,
        "query_string": query,
        "root_path": root + route.root_path if root else route.root_path,
        "headers": headers,
    }
    if shared.config.trusted_proxies and shared.proxies.trusts(base["client"]):
        scope.update(shared.proxies.told(headers))
    return scope
