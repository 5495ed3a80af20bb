"""Interceptors: what stands around each send and each call of a handler sees it, may refuse it, and ends with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import trio
from trio.testing import MockClock

from kernel import (
    Ack,
    DeadLetter,
    Incoming,
    Retry,
)
from kernel.errors import CallTimeoutError, PermanentError, RemoteError, SendError
from kernel.testing import open_kernel

from ._interceptors import (
    FORMS,
    Breaks,
    Hangs,
    Inner,
    Keeps,
    Looks,
    NeverYields,
    PlainBreaks,
    PlainKeeps,
    PlainTwice,
    Watch,
    WrittenKeeps,
    YieldsTwice,
    publish,
    seen,
    service,
    session,
)
from ._interceptors import stands as stands

# --- what they are for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
async def test_a_context_variable_reaches_the_handler(form: type[object], autojump_clock: MockClock) -> None:
    async with open_kernel(**service(out=[form], take=[form])) as kernel:
        for number, name in enumerate(["ann", "bob"], start=1):
            session.set(name)
            await publish(kernel, number)
            await kernel.wait_settled(number)
        session.set("nobody")

    assert seen == [("handled", 1, "ann"), ("handled", 2, "bob")]


@pytest.mark.parametrize("form", FORMS)
async def test_what_one_handler_sees_is_not_there_for_the_next(form: type[object], autojump_clock: MockClock) -> None:
    async with open_kernel(**service(out=[form], take=[Refusing, form]), expected=PermanentError) as kernel:
        session.set("ann")
        await publish(kernel, "refused")
        session.set("bob")
        await publish(kernel, 2)
        await kernel.wait_settled(2)
        session.set("nobody")

    assert seen == ["nobody", "nobody", ("handled", 2, "bob")]


class Refusing:
    async def handling(self, incoming: Incoming) -> AsyncGenerator[None]:
        seen.append(session.get())
        if incoming.payload == "refused":
            raise PermanentError("not for us")
        yield


async def test_the_first_stands_outermost_on_both_sides(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(out=[Watch, Inner], take=[Watch, Inner])) as kernel:
        await publish(kernel, 1)
        sent, seen[:] = list(seen), []
        await kernel.wait_settled()

    nested = [("watch", "begins"), ("inner", "begins"), ("inner", "ends"), ("watch", "ends")]
    assert sent == nested
    assert seen == [*nested[:2], ("handled", 1, "nobody"), *nested[2:]]


async def test_a_send_and_a_call_are_seen_as_they_are(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(out=[Looks], call=[Looks])) as kernel:
        id_ = await kernel.resource("driver/out").publish("order.created", 1, headers={"a": "b"})
        await kernel.wait_settled(1)
        answer = await kernel.call("call", "order.created", 2)

    assert answer == "done"
    assert seen == [
        ("order.created", 1, {"a": "b"}, False, "<Outgoing 'order.created'>"),
        (None, id_),
        ("handled", 1, "nobody"),
        ("order.created", 2, {}, True, "<Outgoing 'order.created'>"),
        ("handled", 2, "nobody"),
        (b'{"result":"done"}', "done"),
    ]


@pytest.mark.parametrize(("order", "result"), [(1, "done"), ("again", Retry(1.0))])
async def test_a_call_of_a_handler_is_seen_as_it_is(order: object, result: object, autojump_clock: MockClock) -> None:
    async with open_kernel(**service(take=[Looks])) as kernel:
        await publish(kernel, order)
        await kernel.wait_settled()

    assert seen == [
        ("worker/packer", "take", order, 1, "<Incoming for worker/packer>"),
        True,
        ("handled", order, "nobody"),
        result,
    ]


# --- what they raise --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("side", ["out", "call"])
@pytest.mark.parametrize("breaks", [Breaks, PlainBreaks])
async def test_what_a_sending_one_raises_is_the_senders_error(
    breaks: type[object], side: str, where: str, autojump_clock: MockClock
) -> None:
    setattr(Breaks, where, LookupError("refused"))

    async with open_kernel(**service(**{side: [Watch, breaks]})) as kernel:
        with pytest.raises(LookupError, match="refused"):
            await (publish(kernel, 1) if side == "out" else kernel.call("call", "order.created", 1))
        await kernel.wait_settled(where == "after")

    assert ("watch", "LookupError") in seen
    assert (("handled", 1, "nobody") in seen) is (where == "after")


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize(
    ("error", "outcomes"),
    [
        (ValueError("no boxes"), [Retry, DeadLetter]),
        (PermanentError("never"), [DeadLetter]),
        (SystemExit(3), [DeadLetter]),
    ],
    ids=["retried", "permanent", "exit"],
)
async def test_what_a_handling_one_raises_is_judged_as_the_handlers_failure(
    where: str, error: BaseException, outcomes: list[type[object]], autojump_clock: MockClock
) -> None:
    setattr(Breaks, where, error)

    async with open_kernel(**service(take=[Breaks]), expected=Exception) as kernel:
        await publish(kernel, 1)
        settled = await kernel.wait_settled(len(outcomes))

    assert [type(event.outcome) for event in settled] == outcomes
    assert {event.worker for event in settled} == {"worker/packer"}


async def test_what_is_raised_inside_is_seen_by_all_around_it(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(call=[Watch], take=[Watch]), expected=Exception) as kernel:
        with pytest.raises(RemoteError):
            await kernel.call("call", "order.created", "fails")

    assert seen == [
        ("watch", "begins"),
        ("watch", "begins"),
        ("handled", "fails", "nobody"),
        ("watch", "ValueError"),
        ("watch", "RemoteError"),
    ]


@pytest.mark.parametrize("keeps", [Keeps, PlainKeeps, WrittenKeeps])
async def test_a_send_whose_error_is_kept_is_an_error_all_the_same(
    keeps: type[object], autojump_clock: MockClock
) -> None:
    Breaks.before = LookupError("refused")

    async with open_kernel(**service(out=[Watch, keeps, Breaks])) as kernel:
        with pytest.raises(
            SendError, match=r'an interceptor of driver/out kept to itself what was raised when "order\.created"'
        ):
            await publish(kernel, 1)

    assert "LookupError" in seen


@pytest.mark.parametrize("keeps", [Keeps, PlainKeeps, WrittenKeeps])
async def test_a_handlers_error_may_be_kept(keeps: type[object], autojump_clock: MockClock) -> None:
    async with open_kernel(**service(take=[Watch, keeps])) as kernel:
        await publish(kernel, "fails")
        [settled] = await kernel.wait_settled()

    assert settled.outcome == Ack()
    assert seen[-2:] == ["ValueError", ("watch", "ends")]


@pytest.mark.parametrize(
    ("cls", "text"),
    [(NeverYields, "sending ended without `yield`"), (YieldsTwice, "sending has more than one `yield`")],
)
async def test_a_function_that_does_not_yield_once_is_told(
    cls: type[object], text: str, autojump_clock: MockClock
) -> None:
    async with open_kernel(**service(out=[cls])) as kernel:
        with pytest.raises(RuntimeError, match=f"{cls.__name__}.{text}"):
            await publish(kernel, 1)
        await kernel.wait_settled(cls in {YieldsTwice, PlainTwice})


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_handling_one_is_inside_of_the_handlers_time(where: str, autojump_clock: MockClock) -> None:
    Hangs.where = where

    async with open_kernel(
        **service(take=[Hangs], tables={"packer": {"timeout": 5.0, "retry": {"attempts": 1}}}), expected=TimeoutError
    ) as kernel:
        await publish(kernel, 1)
        [settled] = await kernel.wait_settled()

    assert isinstance(settled.error, TimeoutError)
    assert settled.seconds == pytest.approx(5.0, abs=0.1)
    assert seen[-1] == "cancelled"


async def test_a_handler_that_is_cut_is_cut_with_what_stands_around_it(autojump_clock: MockClock) -> None:
    tables = {"packer": {"timeout": 5.0, "retry": {"attempts": 1}}}

    async with open_kernel(**service(take=[Watch], tables=tables), expected=TimeoutError) as kernel:
        await publish(kernel, "hangs")
        await kernel.wait_settled()

    assert seen == [("watch", "begins"), ("handled", "hangs", "nobody"), ("watch", "Cancelled")]


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_sending_one_is_inside_of_the_publishers_time(where: str, autojump_clock: MockClock) -> None:
    Hangs.where = where

    async with open_kernel(**service(out=[Hangs], tables={"out": {"timeout": 3.0}})) as kernel:
        began = trio.current_time()
        with pytest.raises(SendError):
            await publish(kernel, 1)
        took = trio.current_time() - began
        await kernel.wait_settled(where == "after")

    assert took == pytest.approx(3.0)
    assert "cancelled" in seen


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_calling_one_is_inside_of_the_calls_time(where: str, autojump_clock: MockClock) -> None:
    Hangs.where = where

    async with open_kernel(**service(call=[Hangs], tables={"call": {"timeout": 3.0}})) as kernel:
        began = trio.current_time()
        with pytest.raises(CallTimeoutError):
            await kernel.call("call", "order.created", 1)

        assert trio.current_time() - began == pytest.approx(3.0)


async def test_a_sender_that_is_cancelled_takes_it_along(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(out=[Hangs])) as kernel:
        with trio.move_on_after(1.0) as scope:
            await kernel.resource("driver/out").publish("order.created", 1)

    assert scope.cancelled_caught
    assert seen == ["cancelled"]


async def test_a_stop_cuts_what_stands_around_a_handler(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(take=[Hangs])) as kernel:
        await publish(kernel, 1)
        await trio.testing.wait_all_tasks_blocked()
        await kernel.stop()

    assert seen == ["cancelled"]
