"""How a peer talks to the test that started it: JSON lines out, and for some JSON lines in."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


def say(**fields: Any) -> None:
    """Print one line; whole, whichever thread says it."""
    os.write(sys.stdout.fileno(), (json.dumps(fields, default=str) + "\n").encode())


def commands() -> Iterator[dict[str, Any]]:
    """Return what the test asks for, until it closes the pipe."""
    for line in sys.stdin:
        yield json.loads(line)


def serve(actions: dict[str, Callable[..., Any]]) -> None:
    """Answer each command `{"do": NAME, ...}` with the result of the action, or with the error that it raised."""
    for command in commands():
        try:
            result = actions[command.pop("do")](**command)
        except Exception as error:  # noqa: BLE001  the test says which error it expects
            say(**told(error))
        else:
            say(result=result)


def told(error: Exception) -> dict[str, Any]:
    """Return what can be told of an error."""
    kind = type(error)
    return {
        "error": kind.__name__,
        "module": kind.__module__,
        "args": list(error.args),
        "text": str(error),
        **{name: value for name, value in vars(error).items() if name in {"exc_type", "value"}},
    }
