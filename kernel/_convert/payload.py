"""Payloads of messages -> the type that a handler asks for; on the hot path, so all looking is done beforehand.

Unknown keys are ignored: a sender may be newer than the reader. Wrong payloads cost more than right ones: only then it
is found out where and why.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Final, get_args

from .._core.words import toml_path
from ..errors import ConversionError
from .compiler import compile_type
from .nodes import Node
from .strict import is_array, is_table
from .walk import MESSAGES, OUTGOING, At, Policy, Walk, described

MAX_DEPTH: Final = 64
"""Of payloads for types that contain themselves; all others are as deep as their type."""
MAX_PROBLEMS: Final = 20
"""Problems that an error lists at most."""


def payload_converter(annotation: object) -> Callable[[object], object]:
    """Return the function that turns a payload into an annotated type.

    The types that are understood stand in docs/reference/types.md. An instance of a class that is asked for always
    passes. `Any`, `object` and a missing annotation take everything as it is.

    Args:
        annotation: A type, with nothing left in it as a string.

    Returns:
        A function that raises `ConversionError` with everything that is wrong.

    Raises:
        TypeError: if no payload can be converted to the annotation.
    """
    return converter_at((), annotation)


def outgoing_converter(at: At, annotation: object) -> Callable[[object], object]:
    """Return what reads a value that is to be sent as a type, to hold it against that; for nothing else.

    As `converter_at`, but that instances of classes with fields are looked into, since nobody has checked those, and
    that sets and the like are arrays.

    Raises:
        TypeError: as `payload_converter`.
    """
    return converter_at(at, annotation, OUTGOING)


def converter_at(at: At, annotation: object, policy: Policy = MESSAGES) -> Callable[[object], object]:
    """Return `payload_converter` for a part of a payload, whose place stands before every problem.

    Raises:
        TypeError: as `payload_converter`.
    """
    if annotation is inspect.Parameter.empty:
        return _same
    if isinstance(annotation, type) and not get_args(annotation):
        return _converter_of_class(at, annotation, policy)
    return _converter(at, annotation, policy)


def _converter(at: At, annotation: object, policy: Policy) -> Callable[[object], object]:
    try:
        compiled = compile_type(annotation, policy)
    except TypeError as error:
        raise TypeError(f"payloads cannot be converted to {annotation!r}: {error}") from error
    node, read, is_recursive = compiled.node, compiled.node.read, compiled.is_recursive

    def convert(payload: object) -> object:
        try:
            if is_recursive:
                _check_depth(payload)
            return read(payload)
        except Exception as exc:  # noqa: BLE001 -- constructors are the user's; whatever they raise, the payload did it
            problems = _problems(node, payload, at, policy, exc)
        # Outside of the handler, and so unchained: foreign errors may hold the payload.
        raise ConversionError(problems)

    return convert


_converter_of_class = functools.lru_cache(maxsize=1024)(_converter)
"""As compiled types are kept: thousands of handlers ask for a few classes."""


def _same(payload: object) -> object:
    return payload


def _check_depth(payload: object) -> None:
    """Refuse what is nested so deep that reading it would exhaust the stack.

    Raises:
        _TooDeepError: if it is deeper than `MAX_DEPTH`.
    """
    level: Iterable[object] = [payload]
    for _ in range(MAX_DEPTH + 1):
        level = {id(part): part for value in level for part in _parts(value)}.values()
        if not level:
            return
    raise _TooDeepError(f"must not be nested more than {MAX_DEPTH} deep")


def _parts(value: object) -> Iterable[object]:
    if is_table(value):
        return value.values()
    return value if is_array(value) else ()


class _TooDeepError(ValueError):
    """A payload is nested so deep that it is not looked at."""


class _EnoughError(Exception):
    """More problems than are listed."""


def _problems(node: Node, payload: object, at: At, policy: Policy, error: Exception) -> list[str]:
    found: list[str] = []

    def report(at: At, text: str) -> None:
        if len(found) == MAX_PROBLEMS:
            raise _EnoughError
        found.append(": ".join(filter(None, (toml_path((), at), text))))

    try:
        if not isinstance(error, _TooDeepError):
            node.explain(payload, at, Walk(policy, report))
        if not found:
            report(at, described(error))
    except _EnoughError:
        found.append("and more")
    except RecursionError:  # of objects that are looked into
        found[:] = [": ".join(filter(None, (toml_path((), at), "is nested too deep, or contains itself")))]
    return found
