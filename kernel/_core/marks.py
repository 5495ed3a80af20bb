"""`@handles`, `@answers` and `@at`: the marks on what handles messages, and on what is done at a stage.

Apart from what reads them, so that workers import nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])
ClassT = TypeVar("ClassT", bound=type[object])

HANDLES: Final = "@handles"
ANSWERS: Final = "@answers"
_PATTERNS: Final = "__kernel_patterns__"
_MARK: Final = "__kernel_mark__"
_STAGES: Final = "__kernel_stages__"
_WORDS: Final = "__kernel_words__"


def handles(*patterns: str) -> Callable[[FunctionT], FunctionT]:
    """Mark a worker's method, or a function, as the handler of subjects. Only marks: nothing is registered.

    The first parameter is given the payload.

    Args:
        *patterns: Subjects; `*` stands for one word, `#` for any number of them.

    Raises:
        TypeError: if used without subjects, as in `@handles` or `@handles()`, or together with `@answers`.
    """
    return _marking(HANDLES, patterns, "order.created")


def answers(*patterns: str) -> Callable[[FunctionT], FunctionT]:
    """Mark a worker's method, or a function, as what is called under subjects. Only marks: nothing is registered.

    Its parameters are the arguments of the call, each converted to its annotation; those annotated `Envelope` or
    `Delivery` are given what they name instead.
    The arguments are a payload that is `Arguments`, an object (by name) or an array (by position); an object with
    exactly the keys `args` (an array) and `kwargs` (an object) gives both.

    Args:
        *patterns: Subjects; `*` stands for one word, `#` for any number of them.

    Raises:
        TypeError: if used without subjects, as in `@answers` or `@answers()`, or together with `@handles`.
    """
    return _marking(ANSWERS, patterns, "billing.charge")


def _marking(mark: str, patterns: tuple[str, ...], example: str) -> Callable[[FunctionT], FunctionT]:
    if not patterns or any(callable(pattern) for pattern in patterns):
        raise TypeError(f'{mark} needs the subjects in parentheses, such as {mark}("{example}")')

    def put(function: FunctionT) -> FunctionT:
        if mark_of(function) not in {"", mark}:
            raise TypeError(
                f"{HANDLES} and {ANSWERS} cannot both stand on {function!r}: it takes a payload or arguments"
            )
        setattr(function, _MARK, mark)
        setattr(function, _PATTERNS, (*patterns, *patterns_of(function)))
        return function

    return put


def patterns_of(function: object) -> tuple[str, ...]:
    """Return the patterns that a function is marked with."""
    return getattr(function, _PATTERNS, ())


def mark_of(function: object) -> str:
    """Return the mark that stands on a function, `@handles` or `@answers`; empty if none."""
    return getattr(function, _MARK, "")


def contract(words: str) -> Callable[[ClassT], ClassT]:
    """Mark a class as a contract whose methods have subjects that begin with these words. Only marks.

    `take` of a class that is marked with `@contract("stock")` is sent under `stock.take`. A method that is marked with
    `@answers` or `@handles` has the subject that stands there.

    Args:
        words: Words, joined by dots.

    Raises:
        TypeError: if used without words, as in `@contract`.
    """
    if callable(words):
        raise TypeError('@contract needs words in parentheses, such as @contract("stock")')

    def put(cls: ClassT) -> ClassT:
        setattr(cls, _WORDS, words)
        return cls

    return put


def words_of(cls: object) -> tuple[str, ...]:
    """Return the words that a contract's subjects begin with."""
    words: str = getattr(cls, _WORDS, "")
    return (words,) if words else ()


def at(*stages: str) -> Callable[[FunctionT], FunctionT]:
    """Mark a method of a worker, driver or dispatcher to be called at stages of the service. Only marks.

    It is plain or async. At `before_stop` and later it may take one argument, the reason of the stop. Before `start`
    and after `stop` there is no object, so that it must be a class method or a static method; at `init` and `exit`,
    outside of the event loop, it must be plain.

    Args:
        *stages: Names: `after_start`, or one that the manifest or a plugin declares.

    Raises:
        TypeError: if used without stages, as in `@at` or `@at()`.
    """
    if not stages or any(callable(stage) for stage in stages):
        raise TypeError('@at needs the stages in parentheses, such as @at("after_start")')

    def put(function: FunctionT) -> FunctionT:
        inner = getattr(function, "__func__", function)
        setattr(inner, _STAGES, (*stages, *stages_of(inner)))
        return function

    return put


def stages_of(function: object) -> tuple[str, ...]:
    """Return the stages that a function is marked with."""
    return getattr(function, _STAGES, ())
