"""What the manifest says about exchanges and queues: tables of the driver, and the `options` of its consumers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, final

import attrs
from attrs import Attribute
from attrs.validators import and_, ge, gt, in_, le, min_len, optional

from kernel.abc import check_partition_by

Argument: TypeAlias = bool | int | float | str
Arguments: TypeAlias = Mapping[str, Argument]
PlaceType: TypeAlias = Literal["classic", "quorum"]
QueueType: TypeAlias = Literal["classic", "quorum", "stream"]
Strategy: TypeAlias = Literal["at-most-once", "at-least-once"]

LONGEST: Final = 255
"""Bytes of a name. Source: AMQP 0-9-1, short strings."""


def check_name(_: object, attribute: Attribute[str], value: str) -> None:
    """Raise ValueError for a name that is too long; a validator of attrs."""
    if (size := len(value.encode())) > LONGEST:
        raise ValueError(f"'{attribute.name}' must have at most {LONGEST} bytes in UTF-8, and has {size}")


_NAME: Final[Callable[[object, Attribute[str], str], object]] = check_name
_POSITIVE: Final = gt(0.0)
_KEYS: Final = {
    "x-message-ttl": "ttl",
    "x-max-priority": "max_priority",
    "x-queue-type": "type",
    "x-single-active-consumer": "single_active_consumer",
    "x-delivery-limit": "delivery_limit",
    "x-expires": "expires",
    "x-dead-letter-strategy": "dead_letter_strategy",
    "x-max-age": "max_age",
}
"""Arguments of a queue that only a key of their own says. Bounds are not among them: an argument says a bound alone,
and a key also what becomes of what is above it."""
_NOT_OF_QUORUM: Final = ("auto_delete", "exclusive", "max_priority")
_NOT_OF_STREAM: Final = (
    *_NOT_OF_QUORUM,
    "max_length",
    "ttl",
    "partition_by",
    "expires",
    "single_active_consumer",
    "consumer_priority",
)
_OF_STREAM: Final = ("max_age", "filter", "match_unfiltered")
_INTERVAL: Final = re.compile(r"[1-9][0-9]{0,8}[YMDhms]")
_LAST_OFFSET: Final = 2**63 - 1


def _no_arguments() -> Arguments:
    return {}


def _check_arguments(_: object, attribute: Attribute[Arguments], value: Arguments) -> None:
    for name in value:
        if name in _KEYS:
            raise ValueError(f"'{attribute.name}' must not have {name}: the key `{_KEYS[name]}` says that")


def _check_type(instance: object, attribute: Attribute[QueueType | None], value: QueueType | None) -> None:
    if value != "stream" and (said := [key for key in _OF_STREAM if getattr(instance, key, None)]):
        raise ValueError(f"'{said[0]}' is for queues of `type = \"stream\"`")
    if value == "stream":
        _check_stream(instance, attribute)
    if value != "quorum":
        return
    wrong = [key for key in _NOT_OF_QUORUM if getattr(instance, key, None)]
    if wrong or getattr(instance, "durable", True) is False:
        raise ValueError(
            f"'{attribute.name}' \"quorum\" is for queues that are durable, and neither auto_delete nor exclusive, and"
            " have no max_priority"
        )


def _check_stream(instance: object, attribute: Attribute[QueueType | None]) -> None:
    wrong = [key for key in _NOT_OF_STREAM if getattr(instance, key, None)]
    if getattr(instance, "durable", True) is False:
        wrong.append("durable = false")
    if wrong:
        raise ValueError(
            f"'{attribute.name}' \"stream\" is for queues without `{'`, `'.join(wrong)}`: `max_length_bytes` and `max_age`"
            " bound a stream, and whoever consumes gets every message in the order in which they came"
        )


def _check_offset(instance: object, attribute: Attribute[Any], value: int | str) -> None:
    if value != "next" and getattr(instance, "type", None) != "stream":
        raise ValueError(f"'{attribute.name}' is for queues of `type = \"stream\"`")
    if not (_is_offset(value) if isinstance(value, str) else 0 <= value <= _LAST_OFFSET):
        raise ValueError(
            f'\'{attribute.name}\' must be "first", "last", "next", a number, a time such as'
            f' "2026-01-31T12:00:00Z", or how far back, such as "7D" or "1h", got {value!r:.60}'
        )


def _is_offset(value: str) -> bool:
    if value in {"first", "last", "next"} or _INTERVAL.fullmatch(value):
        return True
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _check_quorum(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and getattr(instance, "type", None) != "quorum":
        raise ValueError(f"'{attribute.name}' is for queues of `type = \"quorum\"`")


def _check_limit(instance: object, attribute: Attribute[int | None], value: int | None) -> None:
    _check_quorum(instance, attribute, value)
    if value is not None and value != -1 and value < 1:
        raise ValueError(f"'{attribute.name}' must be at least 1, or -1 for none, got {value}")


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

    type: QueueType | None = attrs.field(default=None, validator=_check_type)
    """None leaves it to the virtual host, whose default is `classic` unless somebody has changed that."""
    auto_delete: bool = False
    """Whether it goes away with its last consumer."""
    exclusive: bool = False
    """Whether it is for this connection alone and goes away with it."""
    max_length_bytes: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Bytes of bodies that wait; None sets no bound. `overflow` says what becomes of what is above it."""
    max_priority: int | None = attrs.field(default=None, validator=optional(and_(ge(0), le(255))))
    """The highest priority that the queue tells apart; None or 0 for none."""
    delivery_limit: int | None = attrs.field(default=None, validator=_check_limit)
    """Deliveries that failed after which a quorum queue puts a message aside; -1 for none, None for the broker's."""
    expires: float | None = attrs.field(default=None, validator=optional(_POSITIVE))
    """Seconds without a consumer after which the queue goes away, with what is in it."""
    dead_letter_strategy: Strategy | None = attrs.field(default=None, validator=_check_quorum)
    """How a quorum queue puts aside. None is `at-least-once` where it refuses what is too much, as that needs."""
    single_active_consumer: bool = False
    """Whether one consumer gets everything, and the next when that one goes."""
    lookahead: int = attrs.field(default=100, validator=and_(ge(1), le(10_000)))
    """Messages of an ordered queue that are fetched besides those in flight, to find keys that are free."""
    consumer_priority: int | None = None
    """Consumers with a higher one are served first, as long as they take what comes; None is 0."""
    consumer_tag: str = attrs.field(default="", validator=check_name)
    """What its consumers are called in RabbitMQ's own views; empty for the service."""
    max_age: float | None = attrs.field(default=None, validator=optional(ge(1.0)))
    """Seconds that a stream keeps a message at least; None keeps it for ever, or until `max_length_bytes`."""
    offset: int | str = attrs.field(default="next", validator=_check_offset)
    """Where a consumer of a stream begins: `first`, `last`, `next`, a number, a time, or how far back, such as `1h`."""
    filter: tuple[str, ...] = ()
    """What the header `x-stream-filter-value` of wanted messages may be; empty wants all."""
    match_unfiltered: bool = False
    """Whether messages without that header are wanted, too."""
    arguments: Arguments = attrs.field(factory=_no_arguments, validator=_check_arguments)
    """Sent as they are, and nothing for their sake."""
    without_priorities: bool = False
    """Whether nobody sends priorities to it: an ordered queue that is not classic keeps its order only then, at
    RabbitMQ 4.0 to 4.2."""
    passive: bool = False
    """Whether the queue must exist and is taken as it is: nothing but its bindings is declared."""
    adopt: bool = False
    """Whether to take what exists, whatever its properties, and declare it otherwise."""


@final
@attrs.frozen(kw_only=True)
class QueueTable:
    """The table `queues.NAME`: a queue that the driver declares, with or without a consumer here."""

    durable: bool = True
    type: QueueType | None = attrs.field(default=None, validator=_check_type)
    auto_delete: bool = False
    exclusive: bool = False
    max_length: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Messages; None sets no bound."""
    max_length_bytes: int | None = attrs.field(default=None, validator=optional(ge(1)))
    overflow: str = attrs.field(default="refuse", validator=in_(("refuse", "drop_oldest")))
    ttl: float | None = attrs.field(default=None, validator=optional(_POSITIVE))
    """Seconds after which a waiting message is put aside."""
    dead_letters: str = attrs.field(default="", validator=_NAME)
    """The queue for what is put aside; empty drops it."""
    partition_by: str = attrs.field(default="", validator=check_partition_by)
    max_priority: int | None = attrs.field(default=None, validator=optional(and_(ge(0), le(255))))
    delivery_limit: int | None = attrs.field(default=None, validator=_check_limit)
    expires: float | None = attrs.field(default=None, validator=optional(_POSITIVE))
    dead_letter_strategy: Strategy | None = attrs.field(default=None, validator=_check_quorum)
    single_active_consumer: bool = False
    lookahead: int = attrs.field(default=100, validator=and_(ge(1), le(10_000)))
    consumer_priority: int | None = None
    consumer_tag: str = attrs.field(default="", validator=check_name)
    max_age: float | None = attrs.field(default=None, validator=optional(ge(1.0)))
    offset: int | str = attrs.field(default="next", validator=_check_offset)
    filter: tuple[str, ...] = ()
    match_unfiltered: bool = False
    arguments: Arguments = attrs.field(factory=_no_arguments, validator=_check_arguments)
    without_priorities: bool = False
    adopt: bool = False
    bindings: tuple[BindingTable, ...] = ()
