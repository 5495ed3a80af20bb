"""What an exception means for a delivery, and how it is told."""

from __future__ import annotations

import asyncio

import pytest
import trio

from kernel import DeadLetter, Retry
from kernel._core.policies import RetryPolicy
from kernel._delivery.failure import MAX_REASON, add_note, describe
from kernel._delivery.judge import decide
from kernel.errors import PermanentError, TransientError

THREE = RetryPolicy(attempts=3, backoff_initial=1.0, backoff_factor=2.0, backoff_max=60.0, jitter=0.0)
NARROW = RetryPolicy(attempts=3, backoff_initial=1.0, jitter=0.0, on=(OSError,))


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def group(*errors: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("several", errors)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(ValueError("why"), "ValueError: why", id="text"),
        pytest.param(ValueError(), "ValueError", id="no-text"),
        pytest.param(UnprintableError(), "UnprintableError: <unprintable>", id="unprintable"),
        pytest.param(ValueError("a\r\nb\x1b[31m"), r"ValueError: a\r\nb\x1b[31m", id="control-characters"),
        pytest.param(group(ValueError("a"), group(OSError("b"))), "ValueError: a; OSError: b", id="group"),
        pytest.param(
            group(*map(ValueError, "abcdefg")),
            "; ".join(f"ValueError: {c}" for c in "abcde") + "; and 2 more",
            id="many",
        ),
    ],
)
def test_an_exception_is_one_safe_line(error: BaseException, text: str) -> None:
    assert describe(error) == text


def test_a_long_text_is_cut() -> None:
    assert len(describe(ValueError("x" * 1_000_000))) == MAX_REASON


def test_a_note_is_on_every_leaf() -> None:
    leaves = [ValueError(), OSError(), KeyError()]
    add_note(group(leaves[0], group(leaves[1], leaves[2])), "in worker/w")

    assert [leaf.__notes__ for leaf in leaves] == [["in worker/w"]] * 3


@pytest.mark.parametrize(
    ("error", "policy", "attempt", "outcome"),
    [
        pytest.param(ValueError("why"), THREE, 1, Retry(1.0, "ValueError: why"), id="first"),
        pytest.param(ValueError("why"), THREE, 2, Retry(2.0, "ValueError: why"), id="second"),
        pytest.param(ValueError("why"), THREE, 3, DeadLetter("ValueError: why (attempt 3 of 3)"), id="last"),
        pytest.param(PermanentError("no"), THREE, 1, DeadLetter("PermanentError: no"), id="permanent"),
        pytest.param(
            group(ValueError("a"), PermanentError("b")),
            THREE,
            1,
            DeadLetter("ValueError: a; PermanentError: b"),
            id="permanent-in-a-group",
        ),
        pytest.param(TransientError("soon"), THREE, 1, Retry(1.0, "TransientError: soon"), id="transient"),
        pytest.param(TransientError("soon", after=7.0), THREE, 1, Retry(7.0, "TransientError: soon"), id="after"),
        pytest.param(
            group(ValueError("a"), TransientError("b", after=0.0)),
            THREE,
            1,
            Retry(0.0, "ValueError: a; TransientError: b"),
            id="after-in-a-group",
        ),
        pytest.param(OSError("x"), NARROW, 1, Retry(1.0, "OSError: x"), id="among"),
        pytest.param(TimeoutError("x"), NARROW, 1, Retry(1.0, "TimeoutError: x"), id="timeout-is-always-among"),
        pytest.param(
            ValueError("x"), NARROW, 1, DeadLetter("ValueError: x (not among those to retry on)"), id="not-among"
        ),
        pytest.param(
            group(OSError("x"), ValueError("y")),
            NARROW,
            1,
            DeadLetter("OSError: x; ValueError: y (not among those to retry on)"),
            id="one-of-a-group-not-among",
        ),
    ],
)
def test_what_follows_from_an_exception(
    error: Exception, policy: RetryPolicy, attempt: int, outcome: Retry | DeadLetter
) -> None:
    assert decide(error, policy, attempt=attempt, chance=lambda: 0.0) == outcome


def test_what_asyncio_says_without_its_loop_is_told_as_that() -> None:
    async def call() -> None:
        asyncio.get_running_loop()

    with pytest.raises(RuntimeError) as caught:
        trio.run(call)

    text = "RuntimeError: no running event loop (a library for asyncio was called, and this service runs on trio)"
    assert describe(caught.value) == text
