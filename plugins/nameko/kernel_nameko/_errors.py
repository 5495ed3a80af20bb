"""Errors <-> how Nameko writes them: `exc_type`, `exc_path`, `exc_args` and `value`.

No class is ever looked up by a name from the wire: only those of the configuration are made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, cast, final

from kernel import Envelope, error_args
from kernel.errors import ArgumentsError, DecodeError, EncodeError, NoWorkerError, RemoteError, error_text

from ._values import as_table

Written: TypeAlias = dict[str, object]

_MODULE: Final = "nameko.exceptions"


@final
class MalformedRequestError(DecodeError):
    """A request has no arguments that could be read."""


@final
class UnserializableResultError(EncodeError):
    """What a handler returned cannot be written."""


def write_error(error: Exception, request: Envelope) -> Written:
    """Return how an error is told to who asked."""
    match error:
        case NoWorkerError():
            return _own("MethodNotFound", request.subject.rpartition(".")[2])
        case MalformedRequestError():
            return _own("MalformedRequest", error_text(error))
        case ArgumentsError():
            return _own("IncorrectSignature", error_text(error))
        case UnserializableResultError():
            return {**_own("UnserializableValueError", f"Unserializable value: {error_text(error)}"), "exc_args": []}
        case _:
            return _foreign(error)


def read_error(written: object, exceptions: Sequence[type[Exception]]) -> Exception:
    """Return the error that an answer carries.

    Args:
        written: What stands in the answer.
        exceptions: What may be made again.

    Raises:
        DecodeError: if it is no error of Nameko.
    """
    fields = as_table(written)
    kind = fields.get("exc_type")
    if not isinstance(kind, str):
        raise DecodeError('the error of the answer is no object with "exc_type"')
    return _rebuilt(fields, exceptions) or RemoteError(kind, _text(fields.get("value")))


def path_of(kind: type[Exception]) -> str:
    """Return the name by which Nameko knows a class of errors."""
    return f"{kind.__module__}.{kind.__name__}"


def _own(name: str, text: str) -> Written:
    return {"exc_type": name, "exc_path": f"{_MODULE}.{name}", "exc_args": [text], "value": text}


def _foreign(error: Exception) -> Written:
    return {
        "exc_type": type(error).__name__,
        "exc_path": path_of(type(error)),
        "exc_args": error_args(error),
        "value": error_text(error),
    }


def _rebuilt(fields: Mapping[str, object], exceptions: Sequence[type[Exception]]) -> Exception | None:
    """Return the error as its own class, if it may be made and can be."""
    arguments = fields.get("exc_args")
    for kind in exceptions:
        if path_of(kind) == fields.get("exc_path"):
            try:
                return kind(*cast("list[object]", arguments if isinstance(arguments, list) else []))
            except Exception:  # noqa: BLE001  the class is the user's, and the arguments are the peer's
                return None
    return None


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else error_text(value)
