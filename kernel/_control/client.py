"""Asks a running service, from another process. Blocks; a service that does not answer is told from one that refuses."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from .places import Place
from .wire import MAX_ANSWER, line_of
from .wire import RefusedError as RefusedError

_CONNECTS_WITHIN: Final = 2.0
ANSWERS_WITHIN: Final = 30.0
"""Seconds in which the thread that answers must have done so; the event loop is not waited for that long."""


class UnansweredError(Exception):
    """A service cannot be reached, or says nothing that is an answer. Its text says why."""


def ask(place: Place, order: str, **arguments: object) -> Any:  # noqa: ANN401  what JSON can say
    """Return the answer of a service.

    Raises:
        RefusedError: if it does not do what it was asked for.
        UnansweredError: if there is no answer.
    """
    return _only(place, follow(place, order, arguments, within=ANSWERS_WITHIN))


def ask_briefly(place: Place, order: str, *, within: float) -> Any:  # noqa: ANN401  as above
    """`ask` for what must come within so many seconds."""
    return _only(place, follow(place, order, {}, within=within))


def _only(place: Place, answers: Iterator[Any]) -> Any:  # noqa: ANN401  as above
    for answer in answers:
        return answer
    raise UnansweredError(f"{place.service} (pid {place.pid}) has closed the connection")


def follow(place: Place, order: str, arguments: Mapping[str, object], *, within: float | None) -> Iterator[Any]:
    """Yield one answer after the other, until there is none any more.

    Args:
        place: Whom to ask.
        order: What.
        arguments: Of the order.
        within: Seconds in which each must come; None waits for ever.

    Raises:
        RefusedError: if it does not do what it was asked for.
        UnansweredError: if there is no answer.
    """
    if place.is_halted:
        raise UnansweredError(_silence(place, "it is halted"))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_CONNECTS_WITHIN)
            connection.connect(str(place.path))
            connection.settimeout(within)
            with suppress(BrokenPipeError):  # it says why it does not listen
                connection.sendall(line_of({"order": order, **arguments}))
            with connection.makefile("rb") as lines:
                while line := lines.readline(MAX_ANSWER):
                    yield _answer(line)
    except (OSError, ValueError) as error:
        raise UnansweredError(_silence(place, str(error))) from error


def _silence(place: Place, why: str) -> str:
    halted = f"a signal has halted it, and `kill -CONT {place.pid}` has it go on"
    return f"{place.service} (pid {place.pid}) does not answer: {halted if place.is_halted else why}"


def _answer(line: bytes) -> Any:  # noqa: ANN401  as above
    answer = json.loads(line)
    if not answer["ok"]:
        raise RefusedError(answer["error"])
    return answer["answer"]
