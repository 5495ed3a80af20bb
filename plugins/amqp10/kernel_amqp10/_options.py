"""What only this broker knows about queues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, final

import attrs
from attrs.validators import and_, ge, gt, le, optional


@final
@attrs.frozen(kw_only=True)
class Amqp10Options:
    """The table `options` of a queue; RabbitMQ alone."""

    type: Literal["classic", "quorum"] | None = None
    """The kind of queue; None leaves it to the broker."""
    max_priority: int = attrs.field(default=0, validator=and_(ge(0), le(9)))
    """Messages with a `priority` up to this overtake others; 0 for none, which costs least."""
    expires: float | None = attrs.field(default=None, validator=optional(gt(0.0)))
    """Seconds without a consumer after which the queue goes away; None for never."""
    arguments: Mapping[str, object] = attrs.field(factory=dict[str, object], repr=False)
    """More arguments, as RabbitMQ names them."""
