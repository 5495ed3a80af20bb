"""Errors <-> how micro-framework writes them: `exception`, `message`, and since 2.1 `args`, `kwargs` and `module`.

No class is ever looked up by a name from the wire: only those of the configuration are made again.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, cast, final

from kernel import Envelope, error_args
from kernel.errors import (
    ArgumentsError,
    DecodeError,
    NoWorkerError,
    PermanentError,
    RemoteError,
    error_text,
)

from ._values import as_table

Written: TypeAlias = dict[str, object]

_MODULE: Final = "micro_framework.exceptions"


@final
class MalformedMessageError(DecodeError):
    """A request names no command that could be read."""


@final
class TargetNotFoundError(PermanentError):
    """There is no such target; the caller is told `RPCTargetDoesNotExist`."""


def write_error(error: Exception, request: Envelope) -> Written:
    """Return how an error is told to who asked."""
    match error:
        case NoWorkerError():
            target = request.subject.partition(".")[2]
            return _own("RPCTargetDoesNotExist", f"{target} does not exist or is not exposed through a RPC method.")
        case TargetNotFoundError():
            return _own("RPCTargetDoesNotExist", error_text(error))
        case MalformedMessageError():
            return _own("RPCMalformedMessage", error_text(error))
        case ArgumentsError():
            return _written("TypeError", error_text(error), [error_text(error)], None)
        case _:
            return _written(type(error).__name__, error_text(error), error_args(error), _module_of(type(error)))


def read_error(written: object, exceptions: Sequence[type[Exception]]) -> Exception:
    """Return the error that an answer carries.

    Args:
        written: What stands in the answer.
        exceptions: What may be made again.

    Raises:
        DecodeError: if it is no error of micro-framework.
    """
    fields = as_table(written)
    kind, message = fields.get("exception"), fields.get("message")
    if not isinstance(kind, str):
        raise DecodeError('the exception of the answer is not an object with "exception"')
    text = "" if message is None else message if isinstance(message, str) else error_text(message)
    return _rebuilt(fields, exceptions) or RemoteError(kind, text)


def _own(name: str, text: str) -> Written:
    return _written(name, text, [text], _MODULE)


def _written(name: str, text: str, args: object, module: str | None) -> Written:
    return {"exception": name, "message": text, "args": args, "kwargs": {}, "module": module}


def _module_of(kind: type[Exception]) -> str | None:
    """Return the module that is written for a class; none for what Python has built in."""
    return None if kind.__module__ == builtins.__name__ else kind.__module__


def _rebuilt(fields: Mapping[str, object], exceptions: Sequence[type[Exception]]) -> Exception | None:
    """Return the error as its own class, if it may be made and can be."""
    args, kwargs = fields.get("args", [fields.get("message")]), fields.get("kwargs")
    for kind in exceptions:
        if _is_named(kind, fields):
            try:
                return kind(
                    *cast("list[object]", args if isinstance(args, list) else []),
                    **cast("dict[str, object]", kwargs if isinstance(kwargs, dict) else {}),
                )
            except Exception:  # noqa: BLE001  the class is the user's, and the arguments are the peer's
                return None
    return None


def _is_named(kind: type[Exception], fields: Mapping[str, object]) -> bool:
    """Return whether an answer names a class; before 2.1 it says no module."""
    if kind.__name__ != fields.get("exception"):
        return False
    return "module" not in fields or fields["module"] == _module_of(kind)
