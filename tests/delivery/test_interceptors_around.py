"""Interceptors around batches, fan-outs, failure workers and threads; how long they live, and that they keep no cancellation."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kernel import (
    Ack,
    Batch,
    DeadLetter,
    HandlerDone,
    Incoming,
    Retry,
    Return,
    current_delivery,
    handles,
)
from kernel._delivery.pipeline import _called
from kernel.errors import PermanentError
from kernel.testing import open_kernel

from ._interceptors import (
    Breaks,
    Hangs,
    Hears,
    NoManager,
    OwnScope,
    PlainSwallows,
    Session,
    Swallows,
    Wants,
    Watch,
    WrittenKeeps,
    publish,
    seen,
    service,
    session,
)
from ._interceptors import stands as stands

# --- where they stand -------------------------------------------------------------------------------------------------


class Batches:
    @handles("order.created")
    async def take(self, orders: list[Any], batch: Batch) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(("handled", sorted(orders), session.get()))


async def test_a_batch_is_handled_within_one(autojump_clock: MockClock) -> None:
    tables = {"take": {"batch": {"size": 3, "wait": 1.0}}}

    async with open_kernel(
        **service(out=[Session], take=[LooksAtBatch, Session], worker=Batches, tables=tables)
    ) as kernel:
        session.set("ann")
        for number in range(3):
            await publish(kernel, number)
        session.set("nobody")
        await kernel.wait_settled(3)

    assert seen == [([0, 1, 2], [0, 1, 2]), ("handled", [0, 1, 2], "ann"), None]


class LooksAtBatch:
    async def handling(self, incoming: Incoming) -> AsyncGenerator[None]:
        payload: Any = incoming.payload
        seen.append((sorted(payload), sorted(int(one.envelope.body) for one in incoming.deliveries)))
        yield
        seen.append(current_delivery())


async def test_a_batch_fails_with_what_stands_around_it(autojump_clock: MockClock) -> None:
    Breaks.after = PermanentError("rolled back")
    tables = {"take": {"batch": {"size": 2, "wait": 1.0}}}

    async with open_kernel(**service(take=[Breaks], worker=Batches, tables=tables), expected=PermanentError) as kernel:
        for number in range(2):
            await publish(kernel, number)
        settled = await kernel.wait_settled(2)

    assert {type(event.outcome) for event in settled} == {DeadLetter}


async def test_each_worker_of_a_fan_out_has_its_own(autojump_clock: MockClock) -> None:
    tables = {"take": {"fan_out": True}, "workers": {"second": {"use": "second", "dispatcher": "take"}}}

    async with open_kernel(**service(out=[Session], take=[Session], tables=tables)) as kernel:
        session.set("ann")
        await publish(kernel, 1)
        session.set("nobody")
        await kernel.wait_settled()

    assert seen == [("handled", 1, "ann")] * 2


async def test_the_failure_worker_is_called_within_them_too(autojump_clock: MockClock) -> None:
    tables = {"packer": {"failure_worker": "last", "retry": {"attempts": 1}}, "workers": {"last": {"use": "last"}}}

    async with open_kernel(**service(out=[Session], take=[Session], tables=tables), expected=ValueError) as kernel:
        session.set("ann")
        await publish(kernel, "fails")
        session.set("nobody")
        await kernel.wait_settled()

    assert seen == [("handled", "fails", "ann"), ("buried", "ann")]


class Blocks:
    @handles("order.created")
    def take(self, order: Any) -> None:
        seen.append(("handled", order, session.get()))


async def test_a_handler_in_a_thread_sees_the_context_variable(autojump_clock: MockClock) -> None:
    tables = {"drivers": {"pool": {"plugin": "thread_pool"}}, "packer": {"runs_in": "pool"}}

    async with open_kernel(**service(out=[Session], take=[Session], worker=Blocks, tables=tables)) as kernel:
        session.set("ann")
        await publish(kernel, 1)
        session.set("nobody")
        await kernel.wait_settled()

    assert seen == [("handled", 1, "ann")]


async def test_passages_are_told_around_them(autojump_clock: MockClock) -> None:
    Breaks.before = PermanentError("refused")

    async with open_kernel(**service(take=[Breaks]), expected=PermanentError) as kernel:
        heard: list[HandlerDone] = []
        kernel.kernel.hub.subscribe(heard.append, HandlerDone)  # type: ignore[arg-type]
        await publish(kernel, 1)
        await kernel.wait_settled()

    assert [type(event.error) for event in heard] == [PermanentError]


# --- their lives ------------------------------------------------------------------------------------------------------


async def test_they_are_given_what_workers_are_and_live_with_what_they_stand_at(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(take=[Wants])) as kernel:
        resource = kernel.resource("driver/out")
        await publish(kernel, 1)
        await kernel.wait_settled()

    assert seen[0] == ("dispatcher/take", "dispatcher/take", resource)
    assert seen[1:] == ["opened", ("handled", 1, "nobody"), "closed"]
    assert "driver/out" in kernel.plan.components["dispatcher/take"].uses


async def test_a_driver_has_its_own_for_each_life(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(call=[Wants])) as kernel:
        assert seen == [("driver/call", "driver/call", kernel.resource("driver/out")), "opened"]

    assert seen[2:] == ["closed"]


async def test_they_may_hear_events(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(take=[Hears])) as kernel:
        await publish(kernel, 1)
        await kernel.wait_settled()

    assert seen == ["StateChanged", ("handled", 1, "nobody")]


async def test_where_there_are_none_nothing_asks_for_them(autojump_clock: MockClock) -> None:
    async with open_kernel(**service()) as kernel:
        assert kernel.resource("driver/out")._context.intercept is None
        [intake] = kernel.kernel._tree.intakes.values()
        pipeline: Any = intake._pipeline

        assert pipeline.called is _called


@pytest.mark.parametrize("swallows", [Swallows, PlainSwallows, WrittenKeeps])
async def test_a_timeout_that_is_swallowed_is_one_all_the_same(
    swallows: type[object], autojump_clock: MockClock
) -> None:
    given = service(take=[Watch, swallows], tables={"packer": {"timeout": 5.0}}, expected=Exception)
    async with open_kernel(**given) as kernel:
        await publish(kernel, "hangs")
        settled = await kernel.wait_settled(2)

    assert [type(event.outcome) for event in settled] == [Retry, DeadLetter]
    assert seen.count("Cancelled") == 2


@pytest.mark.parametrize("swallows", [Swallows, PlainSwallows, WrittenKeeps])
async def test_a_stop_that_is_swallowed_loses_nothing(swallows: type[object], autojump_clock: MockClock) -> None:
    async with open_kernel(**service(take=[swallows], expected=Exception)) as kernel:
        await publish(kernel, "hangs")
        await trio.testing.wait_all_tasks_blocked()
        await kernel.stop()

    assert [type(event.outcome) for event in kernel.settled] == [Return]
    assert "Cancelled" in seen


@pytest.mark.parametrize("swallows", [Swallows, PlainSwallows, WrittenKeeps])
async def test_a_sender_that_is_cancelled_stays_so(swallows: type[object], autojump_clock: MockClock) -> None:
    async with open_kernel(**service(out=[swallows, Hangs])) as kernel:
        with trio.move_on_after(1.0) as scope:
            await publish(kernel, 1)

    assert scope.cancelled_caught


async def test_an_interceptor_may_cancel_what_is_inside_of_it(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(take=[OwnScope])) as kernel:
        await publish(kernel, "hangs")
        settled = await kernel.wait_settled(1)

    assert [type(event.outcome) for event in settled] == [Ack]


async def test_one_that_is_no_context_manager_is_named(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(out=[NoManager])) as kernel:
        with pytest.raises(TypeError, match=r"NoManager\.sending returned NoneType, which is no async context manager"):
            await publish(kernel, 1)
