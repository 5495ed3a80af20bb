"""What every broker carries: one rule, so that a service that is tested over one runs over another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, cast

from ..errors import EncodeError
from .envelope import Envelope

_MAX_DEPTH: Final = 32
"""Lists and objects within each other in a header."""
_LONG: Final = 2**63
"""The integers of AMQP have 64 bits."""


def check_envelope(envelope: Envelope) -> None:
    """Raise for an envelope that not every broker could carry; a broker asks it about all that it sends.

    Raises:
        EncodeError: if the id is no text, or a header nothing that JSON can say: null, booleans, integers of 64 bits,
            finite numbers, text, and lists and `dict`s of these, at most 32 within each other.
        ValueError: if the priority is not 0 to 9.
    """
    if not 0 <= envelope.priority <= 9:
        raise ValueError(f"a priority is 0 to 9, not {envelope.priority}")
    given: object = envelope.id  # not by `cast`, which is a call, for each message
    if not isinstance(given, str) or not given:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise EncodeError(f"the id of a message is text, not {_shown(envelope.id)}")
    if envelope.headers:
        check_headers(envelope.headers)


def check_headers(headers: Mapping[str, object]) -> None:
    """Raise for headers that not every transport could carry, as `check_envelope` does.

    Raises:
        EncodeError: if one is nothing that JSON can say.
    """
    given: object = headers
    # Nearly all are the first, which costs less to ask.
    if not isinstance(given, (dict, Mapping)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise EncodeError(f"headers are a mapping of names to values, not {_shown(headers)}")
    for name, value in headers.items():
        if type(value) is str and value.isascii() and type(name) is str and name.isascii():
            continue  # as nearly all are
        if fault := _fault_of_key(name) or _fault(value, _MAX_DEPTH):
            raise EncodeError(f"header {_shown(name)} is nothing that JSON can say: {fault}")


def _fault(value: object, depth: int) -> str:
    """Return what is wrong with a value; nothing if all is well."""
    if not isinstance(value, list | tuple | dict):
        return _fault_of_leaf(value)
    if not depth:
        return f"more than {_MAX_DEPTH} levels"
    faults = [_fault_of_key(key) for key in cast("dict[object, object]", value)] if isinstance(value, dict) else []
    held = cast("dict[object, object]", value).values() if isinstance(value, dict) else cast("list[object]", value)
    return next(filter(None, [*faults, *(_fault(one, depth - 1) for one in held)]), "")


def _fault_of_leaf(value: object) -> str:
    match value:
        case str():
            return "" if value.isascii() or _is_unicode(value) else "text with half a character"
        case float():
            return "" if math.isfinite(value) else str(value)
        case int():
            return "" if -_LONG <= value < _LONG else "an integer of more than 64 bits"
        case None:
            return ""
        case _:
            return f"a value of {type(value).__name__}"


def _fault_of_key(key: object) -> str:
    return _fault_of_leaf(key) if isinstance(key, str) else f"{_shown(key)} as a name"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    return f"{value!r:.60}"
