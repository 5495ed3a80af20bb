"""Properties that only AMQP has <-> headers of an envelope whose names begin with `amqp-`. Pure.

A sender sets them as it sets any header; a handler reads them from its envelope. Copies keep the properties themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from kernel.errors import EncodeError

from ..core import Properties
from ..core.text import LONGEST_SHORT

PREFIX: Final = "amqp-"
EXPIRATION: Final = f"{PREFIX}expiration"
"""Milliseconds."""
USER_ID: Final = f"{PREFIX}user-id"
DELIVERY_MODE: Final = f"{PREFIX}delivery-mode"
TIMESTAMP: Final = f"{PREFIX}timestamp"
"""Seconds since 1970."""
TRANSIENT: Final = 1
_TYPE: Final = f"{PREFIX}type"
_APP_ID: Final = f"{PREFIX}app-id"
_CONTENT_ENCODING: Final = f"{PREFIX}content-encoding"
_TEXTS: Final = {
    _TYPE: "type",
    _APP_ID: "app_id",
    _CONTENT_ENCODING: "content_encoding",
    USER_ID: "user_id",
}
_ALL: Final = sorted((*_TEXTS, TIMESTAMP, DELIVERY_MODE, EXPIRATION))
LONGEST_EXPIRATION: Final = 2**32 - 1
"""Milliseconds; the broker takes no longer `expiration`."""
_LATEST: Final = 2**64 - 1


def has_named(properties: Properties, *, is_due: bool) -> bool:
    """Return whether a message has such properties; a persistent one, as nearly all are, has nothing to tell of that.

    `is_due` says that it has a deadline: its expiration is what we ourselves have made of that, and no property.
    """
    return (
        properties.type is not None
        or properties.app_id is not None
        or properties.content_encoding is not None
        or properties.timestamp is not None
        or properties.user_id is not None
        or (properties.expiration is not None and not is_due)
        or properties.delivery_mode == TRANSIENT
    )


def named(properties: Properties, *, is_due: bool, clean: Callable[[str], str]) -> dict[str, object]:
    """Return what stands in the properties of a message, as headers; `is_due` as with `has_named`."""
    found: dict[str, object] = {}
    # One by one: some programs set one of these on each message, and to go through a table takes longer than the rest.
    if properties.type is not None:
        found[_TYPE] = clean(properties.type)
    if properties.app_id is not None:
        found[_APP_ID] = clean(properties.app_id)
    if properties.content_encoding is not None:
        found[_CONTENT_ENCODING] = clean(properties.content_encoding)
    if properties.user_id is not None:
        found[USER_ID] = clean(properties.user_id)
    if properties.timestamp is not None:
        found[TIMESTAMP] = properties.timestamp
    if properties.expiration is not None and not is_due:
        found[EXPIRATION] = _number_of(clean(properties.expiration))
    if properties.delivery_mode == TRANSIENT:
        found[DELIVERY_MODE] = TRANSIENT
    return found


def take_named(headers: dict[str, object], properties: Properties, *, delay: float) -> None:
    """Move such headers of a sender to the properties of its message. None says nothing.

    Raises:
        EncodeError: if one has a value that the property cannot have; if there is no such property.
    """
    for name, field in _TEXTS.items():
        if name in headers:
            setattr(properties, field, _text(name, headers.pop(name)))
    if TIMESTAMP in headers:
        properties.timestamp = _number(TIMESTAMP, headers.pop(TIMESTAMP), 0, _LATEST)
    if DELIVERY_MODE in headers:
        said = _number(DELIVERY_MODE, headers.pop(DELIVERY_MODE), 1, 2)
        properties.delivery_mode = properties.delivery_mode if said is None else said
    if EXPIRATION in headers:
        _take_expiration(_number(EXPIRATION, headers.pop(EXPIRATION), 0, LONGEST_EXPIRATION), properties, delay)
    if (unknown := next((name for name in headers if name.startswith(PREFIX)), None)) is not None:
        raise EncodeError(
            f'header "{unknown}" is none: what begins with "{PREFIX}" is a property of AMQP, which are {", ".join(_ALL)}'
        )


def _take_expiration(said: int | None, properties: Properties, delay: float) -> None:
    if said is None:
        return
    if delay > 0:
        raise EncodeError(f'a message with a delay has no "{EXPIRATION}": the broker would end its delay by that')
    earlier = properties.expiration  # of a deadline: the one that is over first holds
    properties.expiration = str(said if earlier is None else min(said, int(earlier)))


def is_named(headers: Mapping[str, object]) -> bool:
    """Return whether there may be such headers."""
    return any(name.startswith(PREFIX) for name in headers)


def _text(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value.encode("utf-8", "surrogatepass")) > LONGEST_SHORT:
        raise EncodeError(f'header "{name}" must be text of at most {LONGEST_SHORT} bytes, got {value!r:.60}')
    return value


def _number(name: str, value: object, least: int, most: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise EncodeError(f'header "{name}" must be an integer from {least} to {most}, got {value!r:.60}')
    return value


def _number_of(text: str) -> object:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else text
