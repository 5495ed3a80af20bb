"""Header tables of AMQP <-> headers of an envelope, whose values are what JSON can say."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Final, cast

SUBJECT: Final = "kernel-subject"
"""The subject of a message whose routing key is the name of its queue: a retry, or a dead letter."""
ATTEMPTS: Final = "kernel-attempts"
"""The attempts that a message has behind it."""
CRASHES: Final = "kernel-crashes"
"""Those in which a process died, of a message at a queue that does not count them."""
SENDER: Final = "kernel-user-id"
"""The user who sent the message of which this is a copy; for that of a copy itself the broker takes only our own."""
DEATHS: Final = "x-death"
"""What the broker notes when it dead-letters. Source: RabbitMQ, Dead Letter Exchanges."""
DELIVERY_COUNT: Final = "x-delivery-count"
"""How often a quorum queue has delivered a message before. Source: RabbitMQ, Quorum Queues."""
DELAY: Final = "x-delay"
"""Milliseconds that the delayed message exchange holds a message. Source: its README."""
_DEATH_NOTES: Final = frozenset(
    f"x-{which}-death-{what}" for which in ("first", "last") for what in ("queue", "reason", "exchange")
) | {DEATHS}
_OF_THE_BROKER: Final = _DEATH_NOTES | {DELIVERY_COUNT, "x-stream-offset", "CC", "BCC"}
"""Headers that mean something to the broker: in a copy they would route it, or have it taken for one that goes round."""
_PLAIN: Final = (str, bool, int)


def strip_headers(headers: Mapping[str, object]) -> dict[str, object]:
    """Return headers without those by which the broker routes and counts; a sender must not set them by accident."""
    if _OF_THE_BROKER.isdisjoint(headers):
        return dict(headers)
    return {key: value for key, value in headers.items() if key not in _OF_THE_BROKER}


def without_deaths(headers: Mapping[str, object]) -> dict[str, object]:
    """Return headers without what the broker noted when it dead-lettered the message."""
    return {key: value for key, value in headers.items() if key not in _DEATH_NOTES}


def to_json_values(table: Mapping[str, object]) -> dict[str, object]:
    """Return a table whose values are what JSON can say.

    Times become ISO 8601, decimals become strings, bytes become text if they are UTF-8 and base64 otherwise, and
    numbers that are none become strings.
    """
    return {key: value if type(value) in _PLAIN else to_json_value(value) for key, value in table.items()}


def to_json_value(value: object) -> object:
    """Return a value as JSON can say it; see `to_json_values`."""
    match value:
        case list() | tuple():
            return [to_json_value(item) for item in cast("list[object]", value)]
        case Mapping():
            return to_json_values(cast("Mapping[str, object]", value))
        case _:
            return _scalar(value)


def _scalar(value: object) -> object:
    match value:
        case None | str() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case bytes() | bytearray():
            return _text(bytes(value))
        case datetime():
            return value.isoformat()
        case _:
            return str(value)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(data).decode("ascii")
