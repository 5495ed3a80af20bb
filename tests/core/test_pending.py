"""Calls under way: each ends once, by its answer, an error, or the end of who waits for it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from kernel import Envelope, PendingCall, PendingCalls
from kernel.errors import UnavailableError


def answer(name: str) -> Envelope:
    return Envelope(subject=name)


@pytest.fixture
def calls() -> PendingCalls[str]:
    return PendingCalls[str]()


async def ask(calls: PendingCalls[str], key: str, ends: list[Any], call: PendingCall | None = None) -> None:
    """Wait for an answer as a client does, and note the end."""
    call = calls.add(key, call)
    try:
        ends.append((key, (await call.wait()).subject))
    except UnavailableError as error:
        ends.append((key, error))
    except trio.Cancelled:
        ends.append((key, "cancelled", call.is_done))
        raise
    finally:
        calls.remove(key)


async def test_each_gets_the_answer_with_its_key(calls: PendingCalls[str], nursery: trio.Nursery) -> None:
    ends: list[Any] = []
    for key in ("a", "b"):
        nursery.start_soon(ask, calls, key, ends)
    await trio.testing.wait_all_tasks_blocked()
    under_way = len(calls)
    calls.answer("b", answer("for b"))
    await trio.testing.wait_all_tasks_blocked()
    calls.answer("a", answer("for a"))
    await trio.testing.wait_all_tasks_blocked()

    assert ends == [("b", "for b"), ("a", "for a")]
    assert (under_way, len(calls), calls.late_replies) == (2, 0, 0)


async def test_an_answer_may_come_before_anybody_waits(calls: PendingCalls[str]) -> None:
    call = calls.add("a")
    calls.answer("a", answer("early"))
    with trio.testing.assert_checkpoints():
        reply = await call.wait()

    assert reply.subject == "early"


async def test_what_comes_too_late_or_twice_is_counted_and_dropped(calls: PendingCalls[str]) -> None:
    call = calls.add("a")
    for key, name in (("a", "first"), ("a", "second"), ("b", "nobody's")):
        calls.answer(key, answer(name))
    reply = await call.wait()
    calls.remove("a")
    calls.answer("a", answer("late"))

    assert reply.subject == "first"
    assert calls.late_replies == 3


async def test_all_fail_with_an_error_of_their_own_but_those_that_have_ended(
    calls: PendingCalls[str], nursery: trio.Nursery
) -> None:
    ends: list[Any] = []
    for key in ("a", "b", "c"):
        nursery.start_soon(ask, calls, key, ends)
    await trio.testing.wait_all_tasks_blocked()
    calls.answer("c", answer("for c"))
    calls.fail(lambda: UnavailableError("gone"))
    await trio.testing.wait_all_tasks_blocked()
    errors = [end for _, end in ends if isinstance(end, UnavailableError)]

    assert ("c", "for c") in ends
    assert len(errors) == 2
    assert errors[0] is not errors[1]
    assert len(calls) == 0


async def test_what_cannot_have_arrived_goes_on_when_only_the_rest_fails(
    calls: PendingCalls[str], nursery: trio.Nursery
) -> None:
    ends: list[Any] = []
    sent = PendingCall()
    sent.is_sent = True
    nursery.start_soon(ask, calls, "sent", ends, sent)
    nursery.start_soon(ask, calls, "waits", ends)
    await trio.testing.wait_all_tasks_blocked()
    calls.fail(lambda: UnavailableError("gone"), only_sent=True)
    await trio.testing.wait_all_tasks_blocked()
    ended = [key for key, *_ in ends]
    calls.answer("waits", answer("here"))
    await trio.testing.wait_all_tasks_blocked()

    assert ended == ["sent"]
    assert ends[-1] == ("waits", "here")


async def test_a_wait_that_is_cancelled_leaves_the_call_open(calls: PendingCalls[str]) -> None:
    ends: list[Any] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await ask(calls, "a", ends)
    calls.answer("a", answer("late"))

    assert ends == [("a", "cancelled", False)]
    assert (len(calls), calls.late_replies) == (0, 1)


async def test_an_answer_that_came_before_the_cancellation_counts(
    calls: PendingCalls[str], nursery: trio.Nursery
) -> None:
    ends: list[Any] = []
    scope = trio.CancelScope()

    async def go() -> None:
        with scope:
            await ask(calls, "a", ends)

    nursery.start_soon(go)
    await trio.testing.wait_all_tasks_blocked()
    calls.answer("a", answer("in time"))
    scope.cancel()
    await trio.testing.wait_all_tasks_blocked()

    assert ends == [("a", "in time")]
