"""What may stand in the tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import attrs

from kernel import Secret
from kernel.abc import check_http_headers, parse_url

_MIB: Final = 1024 * 1024
_COUNT: Final = attrs.validators.ge(1)
_POSITIVE: Final = attrs.validators.gt(0.0)


@final
@attrs.frozen(kw_only=True)
class FormatConfig:
    """The table of a protocol `jsonrpc` or `ufw_websocket`."""

    max_bytes: int = attrs.field(default=_MIB, validator=_COUNT)
    """Bytes of a message."""
    max_depth: int = attrs.field(
        default=64, validator=attrs.validators.and_(attrs.validators.ge(3), attrs.validators.le(500))
    )
    """How many arrays and objects may lie within each other, those of the format counted."""
    max_batch: int = attrs.field(default=100, validator=_COUNT)
    """Requests in a batch."""


@attrs.frozen(kw_only=True)
class LineConfig:
    """What both ends of a connection have."""

    timeout: float = attrs.field(default=30.0, validator=_POSITIVE)
    """Seconds that a call to the other side may take, if the caller's own deadline is not sooner."""
    max_bytes: int = attrs.field(default=_MIB, validator=_COUNT)
    """Bytes of a message that comes in; a longer one ends the connection."""
    max_unsent: int = attrs.field(default=1000, validator=_COUNT)
    """Messages that wait to be sent, of 64 MiB together; more end the connection, whose other side does
    not read."""
    send_timeout: float = attrs.field(default=10.0, validator=_POSITIVE)
    """Seconds for sending one message or a pong, and for the peer to agree to an end; then the connection is ended."""


@final
@attrs.frozen(kw_only=True)
class WebSocketConfig(LineConfig):
    """The table of a dispatcher `websocket`."""

    port: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(attrs.validators.and_(attrs.validators.ge(0), attrs.validators.le(65535))),
    )
    """None has those served that come to the door, a driver `websocket`, which is its driver."""
    host: str = "127.0.0.1"
    """The address to listen at; other machines reach 127.0.0.1 not at all."""
    path: str = "/"
    """The path that may be asked for, below the prefix if it has a door; empty allows any."""
    max_connections: int = attrs.field(default=1000, validator=_COUNT)
    """Connections at a time; more are refused with 503."""
    max_pending: int = attrs.field(default=100, validator=_COUNT)
    """Requests of one connection that wait or are handled; then no more of it is read."""
    origins: tuple[str, ...] = ()
    """The origins whose pages a browser may connect from, or `*`. A page of the same address may if that is numbers."""
    authenticate: Callable[..., object] | None = None
    """Called with the `Handshake`; returns who it is, as text, or None to refuse. May be async."""


def _check_url(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    try:
        parts = parse_url(value, "ws", "wss")
    except ValueError as error:
        raise ValueError(f"'{attribute.name}' must be ws://HOST:PORT/PATH, or wss://: {error}") from None
    if "@" in parts.netloc or parts.fragment:
        raise ValueError(f"'{attribute.name}' has a user or a # in it, which are not sent: there is `token`")


def _check_token(config: object, attribute: attrs.Attribute[Secret | None], value: Secret | None) -> None:
    if value is not None:
        check_http_headers(config, attribute, {"authorization": value})


@final
@attrs.frozen(kw_only=True)
class WebSocketClientConfig(LineConfig):
    """The table of a driver `websocket_client`."""

    url: str = attrs.field(validator=_check_url)
    """`ws://host:port/path`, or `wss://`."""
    token: Secret | None = attrs.field(default=None, validator=_check_token)
    """Sent as `Authorization: Bearer`."""
    max_in_flight: int = attrs.field(default=1000, validator=_COUNT)
    """Calls at a time; more wait, inside their deadline."""
    reconnect_first: float = attrs.field(default=0.1, validator=_POSITIVE)
    """Seconds before the first try to connect again; doubled each time."""
    reconnect_most: float = attrs.field(default=10.0, validator=_POSITIVE)
    """Seconds between two tries at most."""
