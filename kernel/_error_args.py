"""What an error was raised with, as a peer may get it: the values of JSON, of some number and depth at most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, cast

from .errors import error_text

_MAX_INTEGER: Final = 2**63
_MAX_ITEMS: Final = 32
"""Arguments of an error, and items of one of them, that are told at most."""
_MAX_DEPTH: Final = 3


def error_args(error: BaseException) -> list[object]:
    """Return what an error was raised with, so that it can be written; what JSON cannot say becomes text.

    At most 32 items at each of 3 levels, and integers below 2**63. Never raises, whatever the values' own code does;
    if that fails, nothing is told.
    """
    try:
        return _listed(tuple(error.args), _MAX_DEPTH - 1)
    except Exception:  # noqa: BLE001  the values' own code; the peer must get an answer all the same
        return []


def _listed(values: Sequence[object], depth: int) -> list[object]:
    return [_plain(value, depth) for value in values[:_MAX_ITEMS]]


def _plain(value: object, depth: int) -> object:
    match value:
        case None | bool():
            return value
        case int() if abs(value) < _MAX_INTEGER:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case list() | tuple() if depth:
            return _listed(cast("Sequence[object]", value), depth - 1)
        case dict() if depth:
            items = list(cast("dict[object, object]", value).items())[:_MAX_ITEMS]
            return {error_text(key): _plain(item, depth - 1) for key, item in items}
        case _:
            return error_text(value)
