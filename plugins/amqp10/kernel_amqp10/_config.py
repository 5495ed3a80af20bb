"""What the manifest says about the driver: where the broker is, and how to talk to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, final
from urllib.parse import SplitResult

import attrs
from attrs import Attribute
from attrs.validators import and_, ge, gt, le

from kernel import Secret
from kernel.abc import parse_host, parse_url

from ._addresses import Dialect

_GUEST: Final = "guest"
_PORT: Final = 5672
_TLS_PORT: Final = 5671
_POSITIVE: Final = gt(0.0)


def parse_management(text: str) -> SplitResult:
    """Return a URL of an HTTP API taken apart.

    Raises:
        ValueError: if it is none, or has a user in it.
    """
    parts = parse_url(text, "http", "https")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError('it must be "http://host:port" or "https://host:port", without a user: those have keys')
    return parts


def _check_hosts(_: object, attribute: Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    if not value:
        raise ValueError(f"'{attribute.name}' must name at least one host")
    for text in value:
        parse_host(text, default_port=_PORT)


def _check_management(_: object, attribute: Attribute[str], value: str) -> None:
    if value:
        try:
            parse_management(value)
        except ValueError as error:
            raise ValueError(f"'{attribute.name}' must be the URL of RabbitMQ's HTTP API: {error}") from None


@final
@attrs.frozen(kw_only=True)
class Amqp10TlsTable:
    """The table `tls`: the connection is encrypted, and the broker must prove who it is."""

    ca: str = ""
    """A file with the certificates that are trusted, PEM; empty for those that the machine trusts."""
    certificate: str = ""
    """A file with the certificate that proves who we are, PEM; empty for none."""
    key: str = ""
    """The file with its private key, PEM; empty if it is in the same file."""
    key_password: Secret | None = None
    """What the private key is encrypted with."""
    server_name: str = ""
    """The name that the broker's certificate must be for; empty for the host."""
    verify: bool = True
    """Whether the broker's certificate is verified. Without it, anybody between can read and change everything."""


@final
@attrs.frozen(kw_only=True)
class Amqp10Config:
    """The table of a driver `amqp10`."""

    hosts: tuple[str, ...] = attrs.field(default=(f"127.0.0.1:{_PORT}",), validator=_check_hosts)
    """`host:port` of one broker or of the nodes of one cluster, tried in random order."""
    dialect: Dialect = "rabbitmq"
    """How the broker names queues and exchanges: `rabbitmq` for the plugin of RabbitMQ 3.x, `rabbitmq4` for RabbitMQ
    4, `artemis` for ActiveMQ Artemis."""
    management: str = attrs.field(default="http://127.0.0.1:15672", validator=_check_management)
    """The URL of RabbitMQ's HTTP API, which declares what AMQP 1.0 cannot; not used with `artemis`."""
    virtual_host: str = "/"
    """RabbitMQ's."""
    exchange_in_address: bool = True
    """Over `artemis`, whether messages for an exchange go to the address `EXCHANGE.SUBJECT`, or to `SUBJECT` alone."""
    text_bodies: bool = False
    """Whether bodies that are UTF-8 are sent as text, as aspyx-event and others of its kind want them, and not as bytes."""
    username: str = _GUEST
    password: Secret | None = None
    """None is `guest` for hosts of the loopback, and a mistake for all others."""
    mechanism: Literal["PLAIN", "EXTERNAL", "ANONYMOUS"] = "PLAIN"
    """`EXTERNAL` takes the name from our certificate, `ANONYMOUS` has none."""
    idle_timeout: float = attrs.field(default=10.0, validator=and_(ge(1.0), le(3600.0)))
    """Seconds; a dead connection is found within two of them."""
    connect_timeout: float = attrs.field(default=10.0, validator=_POSITIVE)
    """Seconds for one host, from the first packet to the open connection."""
    backoff_initial: float = attrs.field(default=0.2, validator=_POSITIVE)
    """Seconds before the second try to connect again, at most; doubled for each one after it."""
    backoff_max: float = attrs.field(default=10.0, validator=_POSITIVE)
    """Seconds between two tries, at most. Each wait is a random part of that, so that not all come at once."""
    max_frame_bytes: int = attrs.field(default=64 * 1024, validator=and_(ge(512), le(16 * 1024 * 1024)))
    """A larger frame ends the connection."""
    max_message_bytes: int = attrs.field(default=16 * 1024 * 1024, validator=ge(1))
    """A larger message is rejected unread."""
    tls: Amqp10TlsTable | None = None

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The hosts and their ports; that of TLS or of AMQP where none is given."""
        port = _TLS_PORT if self.tls is not None else _PORT
        return tuple(parse_host(text, default_port=port) for text in self.hosts)

    @property
    def has_directory(self) -> bool:
        """Whether queues and exchanges are declared through the HTTP API."""
        return self.dialect != "artemis"

    def problems(self) -> Iterable[str]:
        """Yield what no validator of a single field can see."""
        if self.mechanism == "EXTERNAL" and (self.tls is None or not self.tls.certificate):
            yield '`mechanism = "EXTERNAL"` needs a `certificate` in the table `tls`: it says who we are'
        needs_password = self.mechanism == "PLAIN" or self.has_directory
        if needs_password and self.password is None and not (self.username == _GUEST and self._is_local()):
            yield f"`password` is missing: it is `{_GUEST}` only for the user {_GUEST} on this machine"
        if self.has_directory and not self.management:
            yield f'`management` is missing: AMQP 1.0 declares nothing, so `dialect = "{self.dialect}"` needs the HTTP API'
        if self.backoff_max < self.backoff_initial:
            yield "`backoff_max` must not be less than `backoff_initial`"

    def plain_password(self) -> str:
        """Return the password, read anew where it is in a file."""
        return _GUEST if self.password is None else self.password.fresh()

    def _is_local(self) -> bool:
        return all(host in {"localhost", "::1"} or host.startswith("127.") for host, _ in self.addresses)
