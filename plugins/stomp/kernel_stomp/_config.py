"""What the manifest says about the driver: where the server is, of which kind it is, and how to talk to it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias, final

import attrs
from attrs import Attribute
from attrs.validators import and_, ge, gt, le, optional

from kernel import Secret
from kernel.abc import parse_host

ServerKind: TypeAlias = Literal["rabbitmq", "activemq"]

_GUEST: Final = "guest"
_PORT: Final = 61613
_TLS_PORT: Final = 61614
_POSITIVE: Final = gt(0.0)


def _check_hosts(_: object, attribute: Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    if not value:
        raise ValueError(f"'{attribute.name}' must name at least one host")
    for text in value:
        parse_host(text, default_port=_PORT)


def _check_line(_: object, attribute: Attribute[str], value: str) -> None:
    if any(char in value for char in "\r\n\0"):
        raise ValueError(f"'{attribute.name}' must be one line")


@final
@attrs.frozen(kw_only=True)
class TlsTable:
    """The table `tls`: the connection is encrypted, and the server must prove who it is."""

    ca: str = ""
    """A file with the certificates that are trusted, PEM; empty for those that the machine trusts."""
    certificate: str = ""
    """A file with the certificate that proves who we are, PEM; empty for none."""
    key: str = ""
    """The file with its private key, PEM; empty if it is in the same file."""
    key_password: Secret | None = None
    """What the private key is encrypted with."""
    server_name: str = ""
    """The name that the server's certificate must be for; empty for the host."""
    verify: bool = True
    """Whether the server's certificate is verified. Without it, anybody between can read and change everything."""


@final
@attrs.frozen(kw_only=True)
class StompOptions:
    """The table `options` of a consumer: what only these servers know of a queue. RabbitMQ alone."""

    type: Literal["classic", "quorum"] | None = None
    """None leaves it to the virtual host. A quorum queue counts the deliveries in which a process died."""
    max_priority: int | None = attrs.field(default=None, validator=optional(and_(ge(1), le(255))))
    """The highest priority that the queue tells apart; None for no priorities."""
    expires: float | None = attrs.field(default=None, validator=optional(_POSITIVE))
    """Seconds without a consumer after which the queue goes away, with what is in it."""


@final
@attrs.frozen(kw_only=True)
class StompConfig:
    """The table of a driver `stomp`."""

    server: ServerKind = "rabbitmq"
    """Whose destinations are spoken, and what can be asked for."""
    hosts: tuple[str, ...] = attrs.field(default=(f"127.0.0.1:{_PORT}",), validator=_check_hosts)
    """`host:port` of one server or of the nodes of one cluster, tried in random order. 61613, with TLS 61614."""
    host: str = attrs.field(default="", validator=_check_line)
    """The header `host`: RabbitMQ's virtual host. Empty is `/` there, and the name of the host at others."""
    login: str = attrs.field(default=_GUEST, validator=_check_line)
    """Empty sends neither login nor passcode: the certificate says who we are."""
    passcode: Secret | None = None
    """None is `guest` for that user on this machine, and a mistake for all others."""
    heartbeat: float = attrs.field(default=10.0, validator=and_(ge(1.0), le(3600.0)))
    """Seconds; a dead connection is found within two of them."""
    connect_timeout: float = attrs.field(default=10.0, validator=_POSITIVE)
    """Seconds for one host, from the first packet to the open connection; at most two heartbeats."""
    backoff_initial: float = attrs.field(default=0.2, validator=_POSITIVE)
    """Seconds before the first try to connect again, at most; doubled from the third on."""
    backoff_max: float = attrs.field(default=10.0, validator=_POSITIVE)
    """Seconds between two tries, at most. Each wait is a random part of that, so that not all come at once."""
    max_message_bytes: int = attrs.field(default=16 * 1024 * 1024, validator=ge(1))
    """A larger message is put aside unread."""
    exchanges: tuple[str, ...] = ()
    """Exchanges of RabbitMQ that others have made and that are used as they are; every other is a part of
    `amq.topic`, since STOMP cannot make one."""
    queues: tuple[str, ...] = ()
    """Queues of ActiveMQ that others fill and nobody here declares; to take from any other that is not declared is a
    mistake, since ActiveMQ would make it."""
    delays: bool = False
    """Whether ActiveMQ has a scheduler (`schedulerSupport="true"`), which holds messages back. RabbitMQ needs none."""
    tls: TlsTable | None = None

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The hosts and their ports."""
        port = _TLS_PORT if self.tls is not None else _PORT
        return tuple(parse_host(text, default_port=port) for text in self.hosts)

    def problems(self) -> Iterable[str]:
        """Yield what no validator of a single field can see."""
        if self.login and self.passcode is None and not (self.login == _GUEST and self._is_local()):
            yield f"`passcode` is missing: it is `{_GUEST}` only for the user {_GUEST} on this machine"
        if not self.login and self.passcode is not None:
            yield '`passcode` has no effect with `login = ""`: leave it out'
        if self.backoff_max < self.backoff_initial:
            yield "`backoff_max` must not be less than `backoff_initial`"
        if self.server != "rabbitmq" and self.exchanges:
            yield "`exchanges` are RabbitMQ's: leave it out"
        if self.server != "activemq" and self.queues:
            yield "`queues` is for ActiveMQ: leave it out, RabbitMQ tells which queues there are"
        if self.server != "activemq" and self.delays:
            yield "`delays` is for ActiveMQ: leave it out, RabbitMQ holds messages back by itself"

    def secret(self) -> str:
        """Return the passcode, read anew where it is in a file; a secret."""
        return _GUEST if self.passcode is None else self.passcode.fresh()

    def _is_local(self) -> bool:
        return all(is_loopback(host) for host, _ in self.addresses)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, as far as its name tells."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
