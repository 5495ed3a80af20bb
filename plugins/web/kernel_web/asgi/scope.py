"""The scope of a request: what ASGI says of it, and of the connection that it came over."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote_to_bytes

from ..wire.channel import Channel

SPEC_VERSION: Final = "2.3"
"""With 2.4, Starlette no longer listens for the client: a stream that has nothing to say would never learn that it has
left, and keep its slot. `send` raises an `OSError` all the same once the client is gone, as 2.4 asks for."""
_ASGI: Final = {"version": "3.0", "spec_version": SPEC_VERSION}


def connection_scope(channel: Channel, client: Any, server: Any) -> dict[str, Any]:  # noqa: ANN401  as sockets say it
    """Return what is the same for every request of a connection.

    Args:
        channel: The connection.
        client: The address of the other end, as the socket has it.
        server: That of this end.
    """
    scope: dict[str, Any] = {
        "asgi": _ASGI,
        "scheme": "http" if channel.tls is None else "https",
        "client": client[:2] if isinstance(client, tuple) and client else None,
        "server": server[:2] if isinstance(server, tuple) else (server, None),
    }
    return scope


def split_target(target: bytes) -> tuple[str, bytes, bytes]:
    """Return the decoded path, the path as it was sent, and the query of a target in origin form."""
    path, _, query = target.partition(b"?")
    text = path.decode() if b"%" not in path else unquote_to_bytes(path).decode(errors="replace")
    return text, path, query
