"""What the tables of all ZeroMQ components have in common, and what may stand in each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias, final

import attrs

from kernel import Secret
from kernel.abc import Endpoint

Framing: TypeAlias = Literal["frames", "service_framework", "body"]

_MIB: Final = 1024 * 1024
_COUNT: Final = attrs.validators.ge(1)
_SCHEMES: Final = ("tcp", "ipc", "inproc")
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f]|\Atcp://.* ")
_KEY_LENGTH: Final = 40
"""Characters of a key in Z85. Source: ZeroMQ RFC 32."""


def endpoint(text: str) -> str:
    """Return an endpoint as ZeroMQ takes it: without a scheme it is TCP, and without a host it is 127.0.0.1.

    Raises:
        ValueError: if it is none.
    """
    if _UNFIT.search(text):
        raise ValueError(f"{text!r} is no endpoint: it has a space or a line break in it")
    scheme, found, address = text.partition("://")
    if found:
        if scheme not in _SCHEMES or not address:
            raise ValueError(f'"{text}" is no endpoint: write tcp://HOST:PORT, ipc://PATH or inproc://NAME')
        host, _, port = address.rpartition(":")
        if scheme == "tcp" and not (host and _is_port(port)):
            raise ValueError(f'"{text}" is no endpoint: write tcp://HOST:PORT, with a port from 1 to 65535, or *')
        return text
    host, _, port = text.rpartition(":")
    if not _is_port(port):
        raise ValueError(f'"{text}" is no endpoint: its port is no number')
    return f"tcp://{host or '127.0.0.1'}:{port}"


def _is_port(text: str) -> bool:
    """Return whether it is a port, or leaves it to the system."""
    return text in {"*", "!"} or (text.isascii() and text.isdecimal() and int(text) < 65536)


def check_endpoint(_: object, __: attrs.Attribute[str], value: str) -> None:
    """Raise ValueError for what is no endpoint; a validator of attrs."""
    endpoint(value)


def _check_endpoints(_: object, __: attrs.Attribute[tuple[str, ...]], values: tuple[str, ...]) -> None:
    for value in values:
        endpoint(value)


def _check_key(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if value and (len(value) != _KEY_LENGTH or not value.isascii()):
        raise ValueError(f"'{attribute.name}' must be a key of {_KEY_LENGTH} characters in Z85")


def _check_keys(_: object, attribute: attrs.Attribute[tuple[str, ...]], values: tuple[str, ...]) -> None:
    if not all(len(value) == _KEY_LENGTH and value.isascii() for value in values):
        raise ValueError(f"'{attribute.name}' must be keys of {_KEY_LENGTH} characters in Z85")


@final
@attrs.frozen(kw_only=True)
class CurveConfig:
    """The table `curve`: the keys of one side of a socket that is encrypted and authenticated by CURVE."""

    secret_key: Secret
    """Our own, in Z85; the public one is made of it."""
    server_key: str = attrs.field(default="", validator=_check_key)
    """The public key of the other side, if that is the server of the two."""
    allowed_keys: tuple[str, ...] = attrs.field(default=(), validator=_check_keys)
    """The public keys of those who may connect, if we are the server; nobody else may."""


@attrs.frozen(kw_only=True)
class LimitsConfig:
    """What every socket has."""

    send_high_water: int = attrs.field(default=1000, validator=_COUNT)
    """Messages that wait to be sent, for each connection."""
    receive_high_water: int = attrs.field(default=1000, validator=_COUNT)
    """Messages that have come and were not taken, for each connection."""
    max_bytes: int = attrs.field(default=16 * _MIB, validator=_COUNT)
    """Bytes of a frame; who sends more is disconnected."""
    linger: float = attrs.field(default=1.0, validator=attrs.validators.ge(0))
    """Seconds for what is not sent yet when the socket closes; at most half of `stop_timeout`."""
    heartbeat: float = attrs.field(default=10.0, validator=attrs.validators.ge(0))
    """Seconds after which a silent peer is asked for a sign, and twice as many until it is gone; 0 asks never."""
    curve: CurveConfig | None = None
    """None neither encrypts nor asks who it is."""


@attrs.frozen(kw_only=True)
class SocketConfig(LimitsConfig):
    """What every socket has that is bound, connected, or both."""

    bind: tuple[str, ...] = attrs.field(default=(), validator=_check_endpoints)
    """Where peers connect to us."""
    connect: tuple[str, ...] = attrs.field(default=(), validator=_check_endpoints)
    """Where we connect to."""


@final
@attrs.frozen(kw_only=True)
class ReplyConfig(SocketConfig):
    """The table of a dispatcher `zmq_reply`."""

    subject: str | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.min_len(1)))
    """Of requests that name none; None is the name of the dispatcher."""


@final
@attrs.frozen(kw_only=True)
class SubscribeConfig(SocketConfig):
    """The table of a dispatcher `zmq_subscribe`."""

    topics: tuple[str, ...] = ("",)
    """What subjects begin with; with `framing = "service_framework"` the whole topic. Empty takes all."""
    framing: Framing = "frames"
    subject: str | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.min_len(1)))
    """Of messages that name none; None is the name of the dispatcher."""
    max_retrying: int = attrs.field(default=1000, validator=_COUNT)
    """Messages that wait in memory for their next attempt; what is more is lost."""


@final
@attrs.frozen(kw_only=True)
class RequestConfig(SocketConfig):
    """The table of a driver `zmq_request`."""

    timeout: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds for an answer to one attempt, if the caller's own deadline is not sooner."""
    attempts: int = attrs.field(default=1, validator=_COUNT)
    """How often a request is sent that gets no answer. With more than 1 it may be handled more than once."""
    max_in_flight: int = attrs.field(default=1000, validator=_COUNT)
    """Calls at a time; more wait, inside their deadline."""
    tell_cancelled: bool = True
    """Whether the other side is told of calls that nobody waits for any more."""

    @property
    def is_single(self) -> bool:
        """Whether there is one peer."""
        return len(self.connect) == 1 and not self.bind


@final
@attrs.frozen(kw_only=True)
class PublishConfig(SocketConfig):
    """The table of a driver `zmq_publish`."""

    framing: Framing = "frames"
    full: Literal["drop", "refuse"] = "drop"
    """What happens when a subscriber is `send_high_water` behind: it does not get what is more, or nobody does and who
    publishes gets an error."""


@final
@attrs.frozen(kw_only=True)
class ProxyConfig(LimitsConfig):
    """The table of a driver `zmq_proxy`."""

    publishers: str = attrs.field(validator=check_endpoint)
    """Where publishers connect to (XSUB)."""
    subscribers: str = attrs.field(validator=check_endpoint)
    """Where subscribers connect to (XPUB)."""


def place(address: str) -> Endpoint | None:
    """Return where an endpoint is on this machine; None if that is within the process, or left to the system."""
    scheme, _, rest = address.partition("://")
    if scheme == "ipc" and rest != "*":
        return Endpoint(path=rest)
    host, _, port = rest.rpartition(":")
    return Endpoint(host=host.strip("[]"), port=int(port)) if scheme == "tcp" and port.isdecimal() else None


def places(binds: Iterable[str]) -> Iterable[Endpoint]:
    """Yield where binds are."""
    return filter(None, map(place, map(endpoint, binds)))


def not_shared(binds: Iterable[str]) -> Iterable[str]:
    """Yield why several processes cannot have a table: one of them alone can bind a place."""
    for text in binds:
        yield (
            f'only one of several processes can bind "{text}": let the peers bind and write `connect`, '
            "with a `zmq_proxy` in a service of its own between them if need be, or write processes = 1"
        )


def problems(config: LimitsConfig) -> Iterable[str]:
    """Yield what is wrong with the keys of a table taken together."""
    if isinstance(config, SocketConfig) and not (config.bind or config.connect):
        yield "neither `bind` nor `connect` says where the peers are"
    if config.curve is not None and bool(config.curve.server_key) == bool(config.curve.allowed_keys):
        yield "`curve` needs `server_key` on the client's side, or `allowed_keys` on the server's, and not both"
