"""What goes over a control socket: one line of JSON asks, lines of JSON answer, and everything has a bound.

A connection carries one request. The answer is one line, or one after the other for what goes on.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

Answer: TypeAlias = Mapping[str, object]
Tell: TypeAlias = Callable[[object], Awaitable[None]]
"""Sends a line of the answer. Raises `trio.TooSlowError` if the client does not take it."""

MAX_REQUEST: Final = 65_536
"""Bytes of a request."""
MAX_DEPTH: Final = 8
"""Levels of a request."""
MAX_ANSWER: Final = 64 << 20
"""Bytes of a line of an answer."""
CLIENTS: Final = 8
"""Connections at a time; one more is told so, and closed."""
WITHIN: Final = 5.0
"""Seconds in which a client must have sent its request, and in which it must take each line of the answer."""


class RefusedError(Exception):
    """A service does not do what it was asked for. Its text says why."""


def line_of(answer: object) -> bytes:
    """Return an answer as its line."""
    return json.dumps(answer, separators=(",", ":"), default=str).encode() + b"\n"


def refusal(text: str) -> Answer:
    """Return the answer to what is not done."""
    return {"ok": False, "error": text}
