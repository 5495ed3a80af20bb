"""What the manifest says about the driver, its exchanges and queues, and the queues of its consumers."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, TypeAlias, TypeVar, final

import attrs
from attrs import Attribute
from attrs.validators import and_, ge, gt, in_, le, max_len, min_len, optional

from kernel import Secret
from kernel.abc import check_partition_by

Argument: TypeAlias = bool | int | float | str
Arguments: TypeAlias = Mapping[str, Argument]
TableT = TypeVar("TableT")
QueueType: TypeAlias = Literal["classic", "quorum"]

_GUEST: Final = "guest"
_PORT: Final = 5672
_TLS_PORT: Final = 5671
_LONGEST: Final = 255


def _check_name(_: object, attribute: Attribute[str], value: str) -> None:
    if (size := len(value.encode())) > _LONGEST:
        raise ValueError(f"'{attribute.name}' must have at most {_LONGEST} bytes in UTF-8, and has {size}")


_NAME: Final[Callable[[object, Attribute[str], str], object]] = _check_name
_POSITIVE: Final = gt(0.0)
_KEYS: Final = {
    "x-max-length": "max_length",
    "x-overflow": "overflow",
    "x-message-ttl": "ttl",
    "x-max-priority": "max_priority",
    "x-queue-type": "type",
    "x-single-active-consumer": "single_active_consumer",
}
"""Arguments of a queue that have a key of their own."""


def _no_arguments() -> Arguments:
    return {}


def _check_arguments(_: object, attribute: Attribute[Arguments], value: Arguments) -> None:
    for name in value:
        if name in _KEYS:
            raise ValueError(f"'{attribute.name}' must not have {name}: the key `{_KEYS[name]}` says that")


def _check_type(instance: object, attribute: Attribute[QueueType], value: QueueType) -> None:
    if value != "quorum":
        return
    wrong = [key for key in ("auto_delete", "exclusive", "max_priority") if getattr(instance, key, None)]
    if wrong or getattr(instance, "durable", True) is False:
        raise ValueError(
            f"'{attribute.name}' \"quorum\" is for queues that are durable, and neither auto_delete nor exclusive, and"
            " have no max_priority"
        )


def _check_names(instance: AmqpConfig, attribute: Attribute[Mapping[str, TableT]], value: Mapping[str, TableT]) -> None:
    for name in value:
        if (size := len(f"{instance.prefix}{name}".encode())) > _LONGEST:
            raise ValueError(
                f"'{attribute.name}' must have names of at most {_LONGEST} bytes in UTF-8, with `prefix`: {name[:40]}..."
                f" has {size}"
            )


def parse_host(text: str, *, default_port: int = _PORT) -> tuple[str, int]:
    """Return host and port of `host`, `host:port` or `[ipv6]:port`.

    Raises:
        ValueError: if it is none of these.
    """
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, str(default_port)
    bare = host.removeprefix("[").removesuffix("]")
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536
    if not (bare and is_port) or any(char.isspace() or char in "/@" for char in text):
        raise ValueError(f'"{text}" must be "host:port"; a port is a number from 1 to 65535')
    if (":" in bare) != (host != bare):
        raise ValueError(f'"{text}" must write an IPv6 address in brackets, and only that: "[::1]:5672"')
    return bare, int(port)


def _check_hosts(_: object, attribute: Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    if not value:
        raise ValueError(f"'{attribute.name}' must name at least one host")
    for text in value:
        parse_host(text)


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
    server_name: str = ""
    """The name that the broker's certificate must be for; empty for the host."""
    verify: bool = True
    """Whether the broker's certificate is verified. Without it, anybody between can read and change everything."""


@final
@attrs.frozen(kw_only=True)
class BindingTable:
    """One entry of `bindings`: what a queue or exchange gets from an exchange."""

    exchange: str = attrs.field(validator=and_(min_len(1), _NAME))
    pattern: str = attrs.field(default="#", validator=_NAME)
    """The routing key, with `*` and `#` where the exchange is a topic exchange."""
    arguments: Arguments = attrs.field(factory=_no_arguments)
    """What a headers exchange matches."""


@final
@attrs.frozen(kw_only=True)
class ExchangeTable:
    """The table `exchanges.NAME`: how an exchange is declared, whoever of this service needs it."""

    type: str = attrs.field(default="topic", validator=and_(min_len(1), _NAME))
    durable: bool = True
    auto_delete: bool = False
    """Whether it goes away with its last binding."""
    internal: bool = False
    """Whether only other exchanges may send to it."""
    arguments: Arguments = attrs.field(factory=_no_arguments)
    adopt: bool = False
    """Whether to take what exists, whatever its properties, and declare it otherwise."""
    bindings: tuple[BindingTable, ...] = ()
    """What it gets from other exchanges."""


@final
@attrs.frozen(kw_only=True)
class AmqpOptions:
    """The table `options` of a component: what only AMQP knows of its queue."""

    type: QueueType = attrs.field(default="classic", validator=_check_type)
    auto_delete: bool = False
    """Whether it goes away with its last consumer."""
    exclusive: bool = False
    """Whether it is for this connection alone and goes away with it."""
    max_priority: int | None = attrs.field(default=None, validator=optional(and_(ge(0), le(255))))
    """The highest priority that the queue tells apart, 0 for none. None is 9 for classic queues that are neither
    exclusive nor ordered, and none for others."""
    single_active_consumer: bool = False
    """Whether one consumer gets everything, and the next when that one goes."""
    lookahead: int = attrs.field(default=100, validator=and_(ge(1), le(10_000)))
    """Messages of an ordered queue that are fetched besides those in flight, to find keys that are free."""
    arguments: Arguments = attrs.field(factory=_no_arguments, validator=_check_arguments)
    passive: bool = False
    """Whether the queue must exist and is taken as it is: nothing but its bindings is declared."""
    adopt: bool = False
    """Whether to take what exists, whatever its properties, and declare it otherwise."""


@final
@attrs.frozen(kw_only=True)
class QueueTable:
    """The table `queues.NAME`: a queue that the driver declares, with or without a consumer here."""

    durable: bool = True
    type: QueueType = attrs.field(default="classic", validator=_check_type)
    auto_delete: bool = False
    exclusive: bool = False
    max_length: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Messages; None sets no bound."""
    overflow: str = attrs.field(default="refuse", validator=in_(("refuse", "drop_oldest")))
    ttl: float | None = attrs.field(default=None, validator=optional(_POSITIVE))
    """Seconds after which a waiting message is put aside."""
    dead_letters: str = attrs.field(default="", validator=_NAME)
    """The queue for what is put aside; empty drops it."""
    partition_by: str = attrs.field(default="", validator=check_partition_by)
    max_priority: int | None = attrs.field(default=None, validator=optional(and_(ge(0), le(255))))
    single_active_consumer: bool = False
    lookahead: int = attrs.field(default=100, validator=and_(ge(1), le(10_000)))
    arguments: Arguments = attrs.field(factory=_no_arguments, validator=_check_arguments)
    adopt: bool = False
    bindings: tuple[BindingTable, ...] = ()


@final
@attrs.frozen(kw_only=True)
class AmqpConfig:
    """The table of a driver `amqp`."""

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
    backoff_initial: float = attrs.field(default=0.2, validator=_POSITIVE)
    """Seconds before the second try to connect again, at most; doubled for each one after it."""
    backoff_max: float = attrs.field(default=10.0, validator=_POSITIVE)
    """Seconds between two tries, at most. Each wait is a random part of that, so that not all come at once."""
    max_message_bytes: int = attrs.field(default=16 * 1024 * 1024, validator=ge(1))
    """A larger message is put aside unread."""
    delayed_exchange: bool = False
    """Whether delays go through the broker's delayed message exchange, a plugin, instead of queues with a TTL."""
    delay_queues: QueueType = "quorum"
    """What the queues are in which delayed messages wait: a `quorum` one keeps each until a queue has taken it. A
    `classic` one costs less, and loses what its target does not take, and what it sends on in the moment in which the
    broker is killed; it is only used for retries into, and delays straight to, queues that this service has declared
    as classic and without a bound."""
    prefix: str = attrs.field(default="", validator=max_len(100))
    """What stands in front of the names of all exchanges and queues, for a broker that others use, too."""
    tls: TlsTable | None = None
    exchanges: Mapping[str, ExchangeTable] = attrs.field(factory=dict[str, ExchangeTable], validator=_check_names)
    queues: Mapping[str, QueueTable] = attrs.field(factory=dict[str, QueueTable], validator=_check_names)

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The hosts and their ports; that of TLS or of AMQP where none is given."""
        port = _TLS_PORT if self.tls is not None else _PORT
        return tuple(parse_host(text, default_port=port) for text in self.hosts)

    def problems(self) -> Iterable[str]:
        """Yield what no validator of a single field can see."""
        if self.mechanism == "EXTERNAL":
            if self.tls is None or not self.tls.certificate:
                yield '`mechanism = "EXTERNAL"` needs a `certificate` in the table `tls`: it says who we are'
            if self.password is not None:
                yield '`password` has no effect with `mechanism = "EXTERNAL"`: leave it out'
        elif self.password is None and not (self.username == _GUEST and self._is_local()):
            yield f"`password` is missing: it is `{_GUEST}` only for the user {_GUEST} on this machine"
        if self.backoff_max < self.backoff_initial:
            yield "`backoff_max` must not be less than `backoff_initial`"

    def sasl_response(self) -> str:
        """Return what proves who we are; a secret."""
        if self.mechanism == "EXTERNAL":
            return ""
        return f"\0{self.username}\0{_GUEST if self.password is None else self.password.reveal()}"

    def _is_local(self) -> bool:
        return all(_is_loopback(host) for host, _ in self.addresses)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
