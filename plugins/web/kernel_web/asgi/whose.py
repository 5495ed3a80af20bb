"""Whose an exception is that comes out of an application: its own, or that of who ends its task or the program."""

from __future__ import annotations

import math
from typing import cast

import trio

from kernel.abc import is_from_terminal


def parted(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Return what of an exception must go on, and what is a failure of the application; None where there is nothing.

    To be asked in the task that it was raised in. A `Cancelled` in a task that nobody cancels was kept from elsewhere,
    and a `KeyboardInterrupt` that no Ctrl-C can have raised is one as any other.
    """
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).split(_passes)
    return (error, None) if _passes(error) else (None, error)


def _passes(error: BaseException) -> bool:
    if isinstance(error, trio.Cancelled):
        return trio.current_effective_deadline() == -math.inf
    return isinstance(error, KeyboardInterrupt) and is_from_terminal()
