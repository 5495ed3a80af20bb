"""What the core tells: one object for each thing that the peer did.

The last event of a channel is `ChannelClosed`, or `Replied` with `Channel.CloseOk` if we asked to close it, or the
`Closed` of its connection. The last event of a connection is `Closed`. Nothing follows the last event, and the number
of the channel may then be that of a new one.
Texts of the broker can be printed; names of queues, consumers, exchanges and keys may have surrogates (`Properties`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs

from .properties import Properties

if TYPE_CHECKING:
    from pamqp.base import Frame


@final
@attrs.frozen
class Opened:
    """The connection is open: channels may be opened."""

    server_properties: dict[str, object] = attrs.field(repr=False)
    heartbeat: float
    """Negotiated seconds; 0 means none."""


@final
@attrs.frozen
class Blocked:
    """The broker is short of memory or disk: it reads nothing from connections that publish."""

    reason: str


@final
@attrs.frozen
class Unblocked:
    """The broker reads again."""


@final
@attrs.frozen
class ChannelOpened:
    """A channel may be used."""

    channel: int


@final
@attrs.frozen(eq=False)
class Replied:
    """The answer to the oldest `call` of the channel that has none, or to its `close`."""

    channel: int
    method: Frame = attrs.field(repr=lambda method: type(method).__name__)


@final
@attrs.define(eq=False)
class Delivered:
    """A message for a consumer."""

    channel: int
    consumer_tag: str
    delivery_tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    properties: Properties
    body: bytes = attrs.field(repr=False)


@final
@attrs.frozen
class TooLarge:
    """A message beyond the bounds was skipped: its body is too large, or its headers nest too deep.

    It is unsettled like any other: whoever consumes decides what becomes of it.
    """

    channel: int
    consumer_tag: str
    delivery_tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    size: int
    """Bytes of the body."""


@final
@attrs.define(eq=False)
class Returned:
    """No queue took a mandatory message; always comes before its confirm."""

    channel: int
    code: int
    text: str
    exchange: str
    routing_key: str
    properties: Properties


@final
@attrs.define(eq=False)
class Confirmed:
    """The broker took the messages `first` to `last` of the channel, or refused them; each is told once."""

    channel: int
    first: int
    last: int
    taken: bool


@final
@attrs.frozen
class ConsumerCancelled:
    """The broker ended a consumer, for example because its queue was deleted."""

    channel: int
    consumer_tag: str


@final
@attrs.frozen
class ChannelClosed:
    """The broker closed a channel because of an error; other channels go on."""

    channel: int
    code: int
    text: str
    method: str
    """What the broker answered with it, for example `queue.declare`; empty if it does not say."""


@final
@attrs.frozen
class Closed:
    """The connection is over, and all its channels; nothing follows."""

    code: int
    """What the broker said, or what `close` was called with; 0 if the peer broke the protocol."""
    text: str
    method: str = ""
    """What the broker answered with it, for example `queue.declare`; empty if it does not say."""


Event = (
    Opened
    | Blocked
    | Unblocked
    | ChannelOpened
    | Replied
    | Delivered
    | TooLarge
    | Returned
    | Confirmed
    | ConsumerCancelled
    | ChannelClosed
    | Closed
)
