"""What the manifest says about the driver: where the broker is, and how to talk to it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeVar, cast, final

import attrs
from attrs import Attribute
from attrs.validators import and_, ge, gt, le, max_len

from kernel import Secret
from kernel.abc import parse_host

from ._tables import LONGEST, ExchangeTable, PlaceType, QueueTable, check_name
from ._url import taken_apart

TableT = TypeVar("TableT")

_GUEST: Final = "guest"
_PORT: Final = 5672
_TLS_PORT: Final = 5671
_NAME: Final[Callable[[object, Attribute[str], str], object]] = check_name
_POSITIVE: Final = gt(0.0)


def _check_url(_: object, attribute: Attribute[Secret | None], value: Secret | None) -> None:
    if value is not None:
        try:
            taken_apart(value.reveal())
        except ValueError as error:
            raise ValueError(f"'{attribute.name}' must be the URL of a broker: {error}") from None


def _check_names(instance: AmqpConfig, attribute: Attribute[Mapping[str, TableT]], value: Mapping[str, TableT]) -> None:
    for name in value:
        if (size := len(f"{instance.prefix}{name}".encode())) > LONGEST:
            raise ValueError(
                f"'{attribute.name}' must have names of at most {LONGEST} bytes in UTF-8, with `prefix`: {name[:40]}..."
                f" has {size}"
            )


def _check_hosts(_: object, attribute: Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    if not value:
        raise ValueError(f"'{attribute.name}' must name at least one host")
    for text in value:
        parse_host(text, default_port=_PORT)


@final
@attrs.frozen(kw_only=True)
class TlsTable:
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


_YEAR: Final = 366 * 86_400.0


@final
@attrs.frozen(kw_only=True)
class AmqpConfig:
    """The table of a driver `amqp`."""

    url: Secret | None = attrs.field(default=None, validator=_check_url)
    """`amqps://user:password@host:port/virtual-host?heartbeat=10`, in place of the keys that it says."""
    hosts: tuple[str, ...] = attrs.field(default=(f"127.0.0.1:{_PORT}",), validator=_check_hosts)
    """`host:port` of one broker or of the nodes of one cluster, tried in random order."""
    virtual_host: str = attrs.field(default="/", validator=_NAME)
    username: str = _GUEST
    password: Secret | None = None
    """None is `guest` for hosts of the loopback, and a mistake for all others."""
    mechanism: Literal["PLAIN", "EXTERNAL"] = "PLAIN"
    """`EXTERNAL` takes the name from our certificate: no user, no password."""
    heartbeat: float = attrs.field(default=10.0, validator=and_(ge(1.0), le(3600.0)))
    """Seconds; a dead connection is found within two of them."""
    connect_timeout: float = attrs.field(default=10.0, validator=_POSITIVE)
    """Seconds for one host, from the first packet to the open connection."""
    consumer_timeout: float = attrs.field(default=1800.0, validator=and_(ge(0.0), le(_YEAR)))
    """What the broker's own `consumer_timeout` is, in seconds: for how long a delivery may be held. `kernel check` warns
    where it may be longer. 0 for a broker without one."""
    backoff_initial: float = attrs.field(default=0.2, validator=_POSITIVE)
    """Seconds before the second try to connect again, at most; doubled for each one after it."""
    backoff_max: float = attrs.field(default=10.0, validator=_POSITIVE)
    """Seconds between two tries, at most. Each wait is a random part of that, so that not all come at once."""
    max_message_bytes: int = attrs.field(default=16 * 1024 * 1024, validator=ge(1))
    """A larger message is put aside unread."""
    delayed_exchange: bool = False
    """Whether delays go through the broker's delayed message exchange, a plugin, instead of queues with a TTL."""
    delay_queues: PlaceType = "quorum"
    """What the queues are in which delayed messages wait: a `quorum` one keeps each until a queue has taken it. A
    `classic` one costs less, and loses what its target does not take, and what it sends on in the moment in which the
    broker is killed; it is only used for retries into, and delays straight to, queues that this service has declared
    as classic and without a bound."""
    connection_name: str = attrs.field(default="", validator=_NAME)
    """What the connections are called in RabbitMQ's own views; empty for service and driver."""
    prefix: str = attrs.field(default="", validator=max_len(100))
    """What stands in front of the names of all exchanges and queues, for a broker that others use, too."""
    tls: TlsTable | None = None
    exchanges: Mapping[str, ExchangeTable] = attrs.field(factory=dict[str, ExchangeTable], validator=_check_names)
    queues: Mapping[str, QueueTable] = attrs.field(factory=dict[str, QueueTable], validator=_check_names)

    def without_url(self) -> AmqpConfig:
        """Return the same with the keys that `url` says in its place; secrets are read anew where they are in files.

        Raises:
            ValueError: if it says what the keys do not take.
        """
        password = None if self.password is None else Secret(self.password.fresh())
        if self.url is None:
            return self if password is None else attrs.evolve(self, password=password)
        keys, tls = taken_apart(self.url.fresh())
        if "password" in keys:
            keys["password"] = Secret(str(keys["password"]))
        elif password is not None:
            keys["password"] = password
        if tls is not None:
            keys["tls"] = attrs.evolve(self.tls or TlsTable(), **cast("Any", tls))
        return attrs.evolve(self, url=None, **cast("Any", keys))

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The hosts and their ports; that of TLS or of AMQP where none is given."""
        port = _TLS_PORT if self.tls is not None else _PORT
        return tuple(parse_host(text, default_port=port) for text in self.hosts)

    def problems(self) -> Iterable[str]:
        """Yield what no validator of a single field can see."""
        if self.url is not None:
            yield from self._problems_of_url()
            return
        if self.mechanism == "EXTERNAL":
            if self.tls is None or not self.tls.certificate:
                yield '`mechanism = "EXTERNAL"` needs a `certificate` in the table `tls`: it says who we are'
            if self.password is not None:
                yield '`password` has no effect with `mechanism = "EXTERNAL"`: leave it out'
        elif self.password is None and not (self.username == _GUEST and self._is_local()):
            yield f"`password` is missing: it is `{_GUEST}` only for the user {_GUEST} on this machine"
        if self.backoff_max < self.backoff_initial:
            yield "`backoff_max` must not be less than `backoff_initial`"

    def _problems_of_url(self) -> Iterable[str]:
        plain = AmqpConfig()
        said = [key for key in ("hosts", "virtual_host", "username") if getattr(self, key) != getattr(plain, key)]
        if said:
            yield f"`{said[0]}` does not go with `url`, which says it"
            return
        try:
            yield from self.without_url().problems()
        except ValueError as error:
            yield f"`url`: {error}"

    def sasl_response(self) -> str:
        """Return what proves who we are; a secret."""
        if self.mechanism == "EXTERNAL":
            return ""
        return f"\0{self.username}\0{_GUEST if self.password is None else self.password.reveal()}"

    def _is_local(self) -> bool:
        return all(is_loopback(host) for host, _ in self.addresses)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, as far as its name tells."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
