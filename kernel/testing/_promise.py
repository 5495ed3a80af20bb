"""How a conformance check tells that a promise is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

LIMIT: Final = 30.0
"""Seconds that one case may take, unless it says otherwise."""


async def prove(promise: str, case: Callable[[], Awaitable[None]], *, limit: float = LIMIT) -> None:
    """Run a case.

    Args:
        promise: What it proves, as a sentence.
        case: Raises if the promise is broken.
        limit: Seconds that it may take.

    Raises:
        AssertionError: naming the promise and what happened instead, if the case raised or did not end.

    Cancellation: Is a checkpoint.
    """
    await trio.lowlevel.checkpoint()
    failures: list[Exception] = []
    with trio.move_on_after(limit) as scope:
        try:
            await case()
        except Exception as error:  # noqa: BLE001  raised again below, under the name of the promise
            failures.append(error)
    if failures:
        raise AssertionError(f"{promise}: {told(failures[0])}") from failures[0]
    if scope.cancelled_caught:
        raise AssertionError(f"{promise}: this was not decided within {limit:g} s")


def told(error: Exception) -> str:
    """Return what went wrong; of a group, what an assertion says rather than what came of it."""
    leaves = list(_leaves(error))
    leaf = next((leaf for leaf in leaves if isinstance(leaf, AssertionError)), leaves[0])
    notes = "".join(f" ({note})" for note in getattr(leaf, "__notes__", ()))
    text = str(leaf) if isinstance(leaf, AssertionError) else f"{type(leaf).__name__}: {leaf}"
    return text + notes


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error


def expect(holds: bool, text: str) -> None:  # noqa: FBT001  reads as assert does
    """Raise an `AssertionError` with a text unless something holds; also when Python runs without assertions."""
    if not holds:
        raise AssertionError(text)
