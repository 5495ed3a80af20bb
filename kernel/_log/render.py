"""A log record's fields -> one line, for people or as JSON. Never raises, whatever the fields hold."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from typing import Final, TypeAlias, cast

from .._core.masks import Masks

MAX_FIELD: Final = 2_000
"""Characters of one field."""
MAX_TRACEBACK: Final = 50_000
"""Characters of a traceback."""
_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31"}

Fields: TypeAlias = Mapping[str, object]
Record: TypeAlias = MutableMapping[str, object]
Render: TypeAlias = Callable[[Fields], str]


def with_traceback(fields: Record) -> Record:
    """Replace what a caller gave as `exc_info` by the traceback."""
    given = fields.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()
    error = cast("tuple[object, object, object]", given)[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        fields["traceback"] = traceback_of(error)
    return fields


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an error, also if the error cannot be printed."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001  an exception that cannot be printed must not break the log
        return "<no traceback: the exception cannot be printed>"


def as_json(masks: Masks) -> Render:
    """Return what makes of fields a line of JSON."""

    def shortened(key: str, value: object) -> object:
        return _cut(key, value, masks) if isinstance(value, str) else value

    def render(fields: Fields) -> str:
        cut = {str(key): shortened(str(key), value) for key, value in fields.items()}
        try:
            return masks.applied(json.dumps(cut, default=printed, allow_nan=False))
        except Exception:  # noqa: BLE001  NaN, a cycle, keys that are no strings, anything that JSON has no word for
            return masks.applied(json.dumps({key: shortened(key, printed(value)) for key, value in cut.items()}))

    return render


def as_text(masks: Masks, *, colour: bool) -> Render:
    """Return what makes of fields a line for people, with a traceback or a stack indented below it."""

    def render(fields: Fields) -> str:
        rest = {key: _cut(key, printed(value), masks) for key, value in fields.items()}
        level = rest.pop("level", "info")
        source = rest.pop("component", None) or rest.pop("logger", "kernel")
        service = f"{rest.pop('service')} " if "service" in rest else ""
        start = f"{rest.pop('timestamp', '')} {level:7} {service}{source}: {rest.pop('event', '')}"
        below = [_indented(rest.pop(key)) for key in ("stack", "traceback") if key in rest]
        line = " ".join([_safe(start), *(f"{_safe(key)}={_quoted(value)}" for key, value in rest.items())])
        if colour:
            line = f"\x1b[{_COLOURS.get(level, '0')}m{line}\x1b[0m"
        return masks.applied("\n".join([line, *below]))

    return render


def printed(value: object) -> str:
    """Return a value as text, whatever its class thinks of that."""
    try:
        return _joined(value)
    except Exception:  # noqa: BLE001  a broken __str__ must not break who logs it
        return f"<unprintable {type(value).__name__}>"


def _joined(value: object) -> str:
    if isinstance(value, list | tuple):
        return "; ".join(map(str, cast("list[object]", value)))
    return str(value)


def _cut(key: str, text: str, masks: Masks) -> str:
    """Shorten a text: a traceback in its middle, since it says at its ends what happened and where it began."""
    limit = MAX_TRACEBACK if key in {"traceback", "stack"} else MAX_FIELD
    if len(text) <= limit:
        return text
    text = masks.applied(text)  # before it is cut: half a password is one, too
    if limit == MAX_FIELD:
        return f"{text[:limit]}..."
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - limit} characters left out ...\n{text[-half:]}"


def _quoted(value: str) -> str:
    if value and not any(char in value for char in ' "='):
        return _safe(value)
    return '"' + _safe(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _safe(text: str) -> str:
    """Escape what is no printable character, so that a record stays on its line and a terminal obeys nobody."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _indented(text: str) -> str:
    return "\n".join(f"    {_safe(line)}" for line in text.rstrip().splitlines())
