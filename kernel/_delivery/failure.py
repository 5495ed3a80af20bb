"""What an exception means for a delivery, and how it is put into words that are safe to log."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Final, cast, final

import attrs

from .._core.envelope import DeadLetter, Envelope, Retry
from .._core.policies import RetryPolicy, backoff
from ..errors import PermanentError, TransientError

MAX_REASON: Final = 500
"""Characters of a reason in a log, an event or a dead letter."""


@final
@attrs.frozen(kw_only=True, repr=False)
class Failure:
    """What a failure worker is given: the delivery that another worker failed at for good."""

    worker: str
    """`worker/name` of the one that failed."""
    reason: str
    attempts: int
    payload: object
    """What the failed handler was given, or None if it did not get that far."""
    envelope: Envelope
    """The original: bytes and headers."""


def describe(error: BaseException) -> str:
    """Return an exception as one safe line: type and text, control characters escaped, cut to `MAX_REASON`."""
    leaves = list(_leaves(error))
    text = "; ".join(_describe_one(leaf) for leaf in leaves[:5])
    return text + (f"; and {len(leaves) - 5} more" if len(leaves) > 5 else "")


def add_note(error: BaseException, note: str) -> None:
    """Add a note to every leaf of an exception (group), so that its origin stays with it."""
    for leaf in _leaves(error):
        leaf.add_note(note)


def decide(
    error: Exception, policy: RetryPolicy, *, attempt: int, chance: Callable[[], float] = random.random
) -> Retry | DeadLetter:
    """Return what follows for a delivery whose handler raised."""
    reason = describe(error)
    leaves = list(_leaves(error))
    if any(isinstance(leaf, PermanentError) for leaf in leaves):
        return DeadLetter(reason)
    if not all(isinstance(leaf, (TransientError, TimeoutError, *policy.on)) for leaf in leaves):
        return DeadLetter(f"{reason} (not among those to retry on)")
    if attempt >= policy.attempts:
        return DeadLetter(f"{reason} (attempt {attempt} of {policy.attempts})")
    after = next((leaf.after for leaf in leaves if isinstance(leaf, TransientError)), None)
    return Retry(backoff(policy, attempt, chance()) if after is None else after, reason)


def _describe_one(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  a broken __str__ must not hide the error it belongs to
        text = "<unprintable>"
    line = f"{name}: {text}" if text else name
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line[:MAX_REASON])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error
