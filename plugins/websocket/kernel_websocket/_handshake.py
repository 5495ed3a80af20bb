"""Who may connect: looked at before the websocket is."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import cast, final

import attrs
import trio
from trio_websocket import Endpoint, WebSocketRequest

from ._boundary import BoundedStream
from ._config import WebSocketConfig


@final
@attrs.frozen(kw_only=True, repr=False)
class Handshake:
    """What a peer says when it connects."""

    path: str
    """With what follows a question mark."""
    headers: Mapping[str, str]
    """By their names in small letters; of those that come twice, the last."""
    remote: str
    """Address of the peer."""


def _may(origin: str, local: Endpoint, origins: Sequence[str]) -> bool:
    """Return whether a page of an origin may connect: one that is named, or that came from the address it connects to.

    A name may lead to us today and to its owner tomorrow, so only an address of numbers, or `localhost`, speaks for
    itself.
    """
    if "*" in origins or origin in origins:
        return True
    return origin in {f"http://{host}:{local.port}" for host in (local.address, "localhost")}


async def admitted(request: WebSocketRequest, stream: BoundedStream, config: WebSocketConfig) -> str | int:
    """Return who a peer is, or the HTTP status that refuses it.

    Cancellation: Is a checkpoint.
    """
    await trio.lowlevel.checkpoint()
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers}
    origin = headers.get("origin")
    if config.path and request.path.partition("?")[0] != config.path:
        return 404
    if origin is not None and not _may(origin, stream.local, config.origins):
        return 403
    if config.authenticate is None:
        return ""
    seen = Handshake(path=request.path, headers=headers, remote=str(stream.remote))
    identity = config.authenticate(seen)
    if inspect.isawaitable(identity):
        identity = cast("object", await identity)
    return identity if isinstance(identity, str) and identity else 403
