"""Payloads of messages -> the type that a handler asks for; on the hot path, so all looking is done beforehand.

Values are as strict as in the manifest, but unknown keys are ignored: a sender may be newer than the reader. Wrong
payloads cost more than right ones: only then it is found out where and why.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from cattrs.errors import AttributeValidationNote, ClassValidationError

from .._core.words import field_and_text, toml_path
from ..errors import ConversionError
from .annotations import plain_type
from .hooks import MAX_PROBLEMS, At, Compiler, WrongPartsError
from .strict import WrongValueError, is_array, is_table

MAX_DEPTH: Final = 64
"""Of payloads for types that contain themselves; all others are as deep as their type."""


def payload_converter(annotation: object) -> Callable[[object], object]:
    """Return the function that turns a payload into an annotated type.

    Understood are attrs classes, dataclasses, `TypedDict`, pydantic models (which validate themselves), bool, int,
    float, str, dates, `Decimal` and `UUID` (from their usual strings), enums (by value), `Literal`, unions, and
    lists, tuples, sets and mappings of these. Of any other class only instances are taken, and an instance of what
    is asked for always passes. `Any`, `object` and a missing annotation take everything as it is.

    Args:
        annotation: A type, with nothing left in it as a string.

    Returns:
        A function that raises `ConversionError` with everything that is wrong.

    Raises:
        TypeError: if no payload can be converted to the annotation.
    """
    return converter_at((), annotation)


def converter_at(at: At, annotation: object) -> Callable[[object], object]:
    """Return `payload_converter` for a part of a payload, whose place stands before every problem.

    Raises:
        TypeError: as `payload_converter`.
    """
    annotation = plain_type(annotation)
    if annotation is inspect.Parameter.empty:
        return _same
    compiler = Compiler()
    try:
        hook = compiler.get_structure_hook(annotation)
    except Exception as exc:
        raise TypeError(f"payloads cannot be converted to {annotation!r}: {exc}") from exc
    is_recursive = compiler.is_recursive

    def convert(payload: object) -> object:
        try:
            if is_recursive:
                _check_depth(payload)
            return hook(payload, annotation)
        except Exception as exc:  # noqa: BLE001 -- constructors are the user's; whatever they raise, the payload did it
            problems = _problems(exc, at)
        # Outside of the handler, and so unchained: foreign errors may hold the payload.
        raise ConversionError(problems)

    return convert


def _same(payload: object) -> object:
    return payload


# --- what was wrong ---------------------------------------------------------------------------------------------


def _check_depth(payload: object) -> None:
    """Refuse what is nested so deep that reading it would exhaust the stack.

    Raises:
        WrongValueError: if it is deeper than `MAX_DEPTH`.
    """
    level = [payload]
    for _ in range(MAX_DEPTH + 1):
        level = [part for value in level for part in _parts(value)]
        if not level:
            return
    raise WrongValueError(f"must not be nested more than {MAX_DEPTH} deep")


def _parts(value: object) -> Iterable[object]:
    if is_table(value):
        return value.values()
    return value if is_array(value) else ()


def _problems(error: Exception, at: At) -> list[str]:
    texts = [
        ": ".join(filter(None, (toml_path((), at), text))) for at, text in islice(_leaves(error, at), MAX_PROBLEMS + 1)
    ]
    return texts if len(texts) <= MAX_PROBLEMS else [*texts[:MAX_PROBLEMS], "and more"]


def _leaves(error: Exception, at: At) -> Iterator[tuple[At, str]]:
    """Yield where and what, for every single problem inside an error."""
    match error:
        case WrongPartsError():
            for step, part in error.parts:
                yield from _leaves(part, (*at, *step))
        case ClassValidationError():
            for part in error.exceptions:
                yield from _of_field(part, at)
        case WrongValueError():
            yield at, str(error)
        case _:
            yield _of_constructor(error, at)


def _of_field(error: Exception, at: At) -> Iterator[tuple[At, str]]:
    names = [note.name for note in getattr(error, "__notes__", ()) if isinstance(note, AttributeValidationNote)]
    if names and isinstance(error, KeyError):
        yield (*at, names[-1]), "is missing"
    else:
        yield from _leaves(error, (*at, *names[-1:]))


def _of_constructor(error: Exception, at: At) -> tuple[At, str]:
    """Name the problem that a class found itself: with attrs' own validators, the field too."""
    field, text = field_and_text(error)
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return (*at, field) if field else at, f"{kind}{text}"
