"""Fan-out: what the verdicts of several workers on one delivery come to, and who answers a request."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from kernel import (
    Ack,
    DeadLetter,
    Envelope,
    Outcome,
    Retry,
    Return,
)
from kernel._delivery.attempt import Verdict
from kernel._delivery.fan_out import combined
from kernel.errors import PermanentError

from ._fanned import AGAIN, FAILS, LATER, Note, body, fan_out, settled
from ._feed import parcel


@pytest.mark.parametrize(
    ("results", "outcome", "worker"),
    [
        ([None, None], Ack(), ""),
        ([None, AGAIN], Retry(3.0, "TransientError: busy"), "worker/w1"),
        ([LATER, AGAIN], Retry(8.0, "worker/w0: TransientError: busier; worker/w1: TransientError: busy"), ""),
        ([AGAIN, FAILS], DeadLetter("PermanentError: bad"), "worker/w1"),
        ([FAILS, FAILS], DeadLetter("worker/w0: PermanentError: bad; worker/w1: PermanentError: bad"), ""),
        ([FAILS, None, Return()], DeadLetter("PermanentError: bad"), "worker/w0"),
        ([Return(), None], Return(), "worker/w0"),
        ([Return(), AGAIN], Retry(3.0, "TransientError: busy"), "worker/w1"),
    ],
)
async def test_the_worst_outcome_of_any_worker_counts(
    results: list[Any], outcome: Outcome, worker: str, autojump_clock: MockClock
) -> None:
    note = Note()
    workers = {
        f"w{number}": note.worker(f"w{number}", error=result)
        if isinstance(result, Exception)
        else note.worker(f"w{number}", result=result)
        for number, result in enumerate(results)
    }
    async with fan_out(workers) as (feed, service):
        assert await feed.settle(parcel(1)) == outcome
        [event] = settled(service)

    assert event.worker == worker
    assert len(note.began) == len(results)


async def test_no_error_of_any_worker_is_lost(autojump_clock: MockClock) -> None:
    note = Note()
    one, two = PermanentError("one"), PermanentError("two")
    workers = {"a": note.worker("a", error=one), "b": note.worker("b"), "c": note.worker("c", error=two)}
    async with fan_out(workers) as (feed, service):
        await feed.settle(parcel(1))
        [event] = settled(service)

    assert isinstance(event.error, BaseExceptionGroup)
    assert event.error.exceptions == (one, two)


@pytest.mark.parametrize(
    ("results", "reply"),
    [
        ([None, "second", "third"], b'"second"'),
        (["first", "second"], b'"first"'),
        ([False, "second"], b"false"),
        ([None, None], b"null"),
        ([FAILS, "second"], b'"second"'),
        ([None, FAILS, OSError("gone")], b"PermanentError: bad"),
        ([Ack(), None], b"null"),
        ([None, Ack(Envelope(subject="answers", body=b"mine"))], b"mine"),
        ([Ack(), Ack()], None),
    ],
)
async def test_a_request_is_answered_by_the_first_worker_that_has_something_to_say(
    results: list[Any], reply: bytes | None, autojump_clock: MockClock
) -> None:
    note = Note()
    workers = {
        f"w{number}": note.worker(
            f"w{number}",
            seconds=10.0 - number,  # the last one is done first
            **({"error": result} if isinstance(result, Exception) else {"result": result}),
        )
        for number, result in enumerate(results)
    }
    async with fan_out(workers) as (feed, _service):
        assert body(await feed.settle(parcel(1, reply_to="answers"))) == reply


async def test_a_request_that_one_worker_wants_again_is_answered_later(autojump_clock: MockClock) -> None:
    note = Note()
    workers = {"ready": note.worker("ready", result="done"), "busy": note.worker("busy", error=AGAIN)}
    async with fan_out(workers) as (feed, _service):
        assert await feed.settle(parcel(1, reply_to="answers")) == Retry(3.0, "TransientError: busy")


def test_one_verdict_stays_as_it_is() -> None:
    verdict = Verdict(DeadLetter("bad"), error=FAILS)

    assert combined([verdict]) == verdict
