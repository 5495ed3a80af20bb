"""Who may connect: looked at before there is a websocket, whatever way the peer came."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, cast, final

import attrs
import trio

from ._config import WebSocketConfig

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds in which a peer must have said what it wants, and again in which it must have been decided on."""


class Socket(Protocol):
    """A websocket that is open. What a peer can bring about is a `ConnectionClosed` of trio-websocket."""

    async def get_message(self) -> str | bytes:
        """Return the next message."""
        ...

    async def send_message(self, message: str) -> None:
        """Send a text; one that the peer does not take in time ends the connection."""

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None:
        """Say that it ends, and why."""


class Asked(ABC):
    """A peer that asks to be let in."""

    __slots__ = ()

    headers: Mapping[str, str]
    """By their names in small letters; of those that come twice, the last."""

    @property
    @abstractmethod
    def path(self) -> str:
        """With what follows a question mark."""

    @property
    @abstractmethod
    def subprotocols(self) -> Sequence[str]:
        """Those that the peer proposes."""

    @property
    @abstractmethod
    def remote(self) -> str:
        """Address of the peer."""

    @property
    @abstractmethod
    def own_origins(self) -> Sequence[str]:
        """Origins of the pages that came from the very address which the peer connects to.

        A name may lead to us today and to its owner tomorrow, so only an address of numbers, or `localhost`, speaks for
        itself.
        """

    @abstractmethod
    async def accept(self, subprotocol: str | None) -> Socket:
        """Let it in."""

    @abstractmethod
    async def reject(self, status: int) -> None:
        """Refuse it with an HTTP status."""

    def on_stop(self, leave: Callable[[], None]) -> None:  # noqa: B027  a port of our own stops with us
        """Have this called when what brings it stops, while we may go on."""


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


def origins_of(scheme: str, host: str, port: int) -> Sequence[str]:
    """Return what a browser calls a server at an address of numbers."""
    shown = f"[{host}]" if ":" in host else host
    end = "" if port == {"http": 80, "https": 443}[scheme] else f":{port}"
    return [f"{scheme}://{name}{end}" for name in (shown, "localhost")]


async def admitted(asked: Asked, config: WebSocketConfig) -> str | int:
    """Return who a peer is, or the HTTP status that refuses it.

    Cancellation: Is a checkpoint.
    """
    await trio.lowlevel.checkpoint()
    origin = asked.headers.get("origin")
    if config.path and asked.path.partition("?")[0] != config.path:
        return 404
    if origin is not None and not ({"*", origin} & set(config.origins) or origin in asked.own_origins):
        return 403
    if config.authenticate is None:
        return ""
    with trio.move_on_after(HANDSHAKE_TIMEOUT):
        identity = config.authenticate(Handshake(path=asked.path, headers=asked.headers, remote=asked.remote))
        if inspect.isawaitable(identity):
            identity = cast("object", await identity)
        return identity if isinstance(identity, str) and identity else 403
    return 503
