"""`@handles`: the mark on what handles messages. Apart from what reads it, so that workers import nothing more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])

_MARK: Final = "__kernel_handles__"


def handles(*patterns: str) -> Callable[[FunctionT], FunctionT]:
    """Mark a worker's method, or a function, as the handler of subjects. Only marks: nothing is registered.

    Args:
        *patterns: Subjects; `*` stands for one word, `#` for any number of them.

    Raises:
        TypeError: if used without subjects, as in `@handles` or `@handles()`.
    """
    if not patterns or any(callable(pattern) for pattern in patterns):
        raise TypeError('@handles needs the subjects in parentheses, such as @handles("order.created")')

    def mark(function: FunctionT) -> FunctionT:
        setattr(function, _MARK, (*patterns, *patterns_of(function)))
        return function

    return mark


def patterns_of(function: object) -> tuple[str, ...]:
    """Return the patterns that `handles` marked a function with."""
    return getattr(function, _MARK, ())
