"""What bodies may raise, and what is told of children: readiness, degradation, the last one's end."""

from __future__ import annotations

import asyncio
import math

import pytest
import trio
from trio.testing import MockClock

from kernel._core.events import StateChanged
from kernel._core.lifecycle import State
from kernel._supervise.child import Child
from kernel._supervise.life import Life

from ._stage import NEVER, ON_FAILURE, Script, Stage, fails, policy, returns


def scripted_by_hand(stage: Stage, body: object, **more: object) -> Child:
    child = stage.add("hand", **more)
    child.body = body
    return child


class PanicError(BaseException):
    """As native libraries raise it."""


FOREIGN = [SystemExit(3), PanicError("lost"), asyncio.CancelledError(), GeneratorExit(), BaseException("bare")]


@pytest.mark.parametrize("error", FOREIGN, ids=repr)
async def test_what_is_no_exception_is_the_failure_of_its_component_all_the_same(
    stage: Stage, autojump_clock: MockClock, error: BaseException
) -> None:
    child = stage.add("a", fails(error=error), Script())

    async with stage.running():
        await trio.sleep(5)
        assert child.state is State.READY

    assert [type(one) for one in stage.failures("a")] == [type(error)]


@pytest.mark.parametrize("one", FOREIGN, ids=repr)
async def test_so_it_is_in_a_group(stage: Stage, autojump_clock: MockClock, one: BaseException) -> None:
    error = BaseExceptionGroup("two", [one, ValueError("broken")])
    stage.add("a", fails(error=error), Script())

    async with stage.running():
        await trio.sleep(5)

    (found,) = stage.failures("a")
    assert [type(leaf) for leaf in found.exceptions] == [type(one), ValueError]


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), BaseExceptionGroup("two", [KeyboardInterrupt(), ValueError("broken")])],
    ids=["alone", "in_a_group"],
)
async def test_keyboard_interrupt_is_nobodys_failure(
    stage: Stage, autojump_clock: MockClock, error: BaseException
) -> None:
    stage.add("a", fails(error=error))

    with pytest.raises(BaseExceptionGroup) as caught:
        async with stage.running():
            await trio.sleep(5)

    assert caught.value.subgroup(KeyboardInterrupt) is not None
    assert caught.value.subgroup(ValueError) is None


async def test_errors_beside_a_cancellation_from_outside_are_reported(stage: Stage, autojump_clock: MockClock) -> None:
    async def body(life: Life) -> None:
        life.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)

    scripted_by_hand(stage, body)

    async with trio.open_nursery() as nursery:
        stage.supervisor.start(nursery)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    (error,) = stage.supervisor.errors
    assert [str(one) for one in error.exceptions] == ["cleanup"]


async def test_a_cancellation_that_a_component_makes_itself_is_its_own(stage: Stage, autojump_clock: MockClock) -> None:
    async def body(life: Life) -> None:
        life.started()
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.sleep_forever()

    child = scripted_by_hand(stage, body, restart=policy(ON_FAILURE))

    async with stage.running():
        await trio.sleep(1)

    assert child.state is State.STOPPED
    assert stage.failures("hand") == []


async def test_a_real_error_wins_over_the_cancellation_of_a_stop(stage: Stage, autojump_clock: MockClock) -> None:
    async def body(life: Life) -> None:
        life.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            await trio.sleep_forever()

    scripted_by_hand(stage, body)

    async with stage.running():
        await trio.sleep(1)

    (error,) = stage.supervisor.errors
    assert [str(one) for one in error.exceptions] == ["cleanup"]


async def test_a_component_that_ends_by_itself_and_hangs_in_its_close_has_failed(
    stage: Stage, autojump_clock: MockClock
) -> None:
    async def body(life: Life) -> None:
        life.started()
        await trio.sleep(1)
        life.drained()
        await trio.sleep_forever()

    scripted_by_hand(stage, body, stop_timeout=4.0)

    async with stage.running():
        await trio.sleep(4.5)

    assert [str(error) for error in stage.failures("hand")] == ["hand did not close within stop_timeout = 4 s"]


async def test_started_twice_is_a_failure(stage: Stage, autojump_clock: MockClock) -> None:
    async def body(life: Life) -> None:
        life.started()
        life.started()

    scripted_by_hand(stage, body, restart=policy(NEVER))

    async with stage.running():
        await trio.sleep(1)

    assert [str(error) for error in stage.supervisor.errors] == ["started() was called twice"]


async def test_a_body_that_never_waits_does_not_stop_others_from_running(
    stage: Stage, autojump_clock: MockClock
) -> None:
    async def body(life: Life) -> None:
        life.started()

    scripted_by_hand(stage, body, restart=policy(backoff_initial=0.0, max_restarts=100))
    stage.add("a")

    async with stage.running():
        await trio.sleep(1)

    assert stage.given_up == ["hand"]
    assert stage.log == "+a -a"


async def test_degraded_and_ready_follow_what_the_component_reports(stage: Stage, autojump_clock: MockClock) -> None:
    child = stage.add("a")

    async with stage.running() as supervisor:
        await trio.sleep(1)
        supervisor.report(child, State.DEGRADED, "no connection")
        supervisor.report(child, State.DEGRADED, "still none")
        supervisor.report(child, State.READY)

    assert stage.states("a")[1:4] == [State.READY, State.DEGRADED, State.READY]
    assert "no connection" in [event.reason for event in stage.of(StateChanged)]
    assert "still none" not in [event.reason for event in stage.of(StateChanged)]


@pytest.mark.parametrize("recovers", [False, True])
async def test_what_is_reported_while_a_child_opens_counts_when_it_is_up(
    stage: Stage, autojump_clock: MockClock, recovers: bool
) -> None:
    child = stage.add("a", Script(opening=2.0, lasts=5.0, raises=ValueError("broken")), Script())

    async with stage.running() as supervisor:
        await trio.sleep(1)
        supervisor.report(child, State.DEGRADED, "no connection")
        if recovers:
            supervisor.report(child, State.READY)
        assert child.state is State.STARTING
        await trio.sleep(2)
        assert child.state is (State.READY if recovers else State.DEGRADED)
        await trio.sleep(10)
        assert child.state is State.READY

    reasons = [event.reason for event in stage.of(StateChanged) if event.new is State.DEGRADED]
    assert reasons == ["no connection"] * (not recovers)


async def test_a_report_from_a_child_that_is_not_up_is_too_late(stage: Stage, autojump_clock: MockClock) -> None:
    child = stage.add("a", fails(1))

    async with stage.running() as supervisor:
        await trio.sleep(1.5)
        supervisor.report(child, State.DEGRADED, "no connection")
        assert child.state is State.BACKOFF


async def test_a_degraded_child_can_be_used_and_be_stopped(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a")
    b = stage.add("b", fails(2), Script(), uses=[a])

    async with stage.running() as supervisor:
        await trio.sleep(1)
        supervisor.report(a, State.DEGRADED)
        await trio.sleep(5)
        assert b.state is State.READY

    assert stage.states("a")[-3:] == [State.DEGRADED, State.STOPPING, State.STOPPED]


def ready_from(stage: Stage) -> float | None:
    """When nothing essential was missing for the first time."""
    return stage.ready_at[0] if stage.ready_at else None


async def test_nothing_is_missing_when_the_last_child_has_become_ready(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a")
    stage.add("b", Script(opening=3.0))

    async with stage.running():
        await trio.sleep(10)

    assert ready_from(stage) == 3.0


async def test_a_child_that_fails_at_first_is_missing(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a", Script(fails_to_open=ValueError("broken")), Script(opening=2.0))

    async with stage.running():
        await trio.sleep(10)

    assert ready_from(stage) == 3.0


async def test_a_child_that_is_restarting_when_the_last_one_comes_is_missing(
    stage: Stage, autojump_clock: MockClock
) -> None:
    a = stage.add("a", fails(1), Script())
    stage.add("b", Script(opening=1.5))

    async with stage.running() as supervisor:
        await trio.sleep(1.6)
        assert supervisor.missing == {a}
        await trio.sleep(10)

    assert ready_from(stage) == 2.0


@pytest.mark.parametrize("script", [Script(fails_to_open=ValueError("broken")), Script(opening=math.inf)])
async def test_what_is_not_essential_is_never_missing(stage: Stage, autojump_clock: MockClock, script: Script) -> None:
    stage.add("a", script, essential=False)
    stage.add("b", Script(opening=1.0))

    async with stage.running():
        await trio.sleep(5)

    assert ready_from(stage) == 1.0


async def test_a_child_that_is_done_is_not_missing(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a", returns(1), restart=policy(ON_FAILURE))
    stage.add("b", Script(opening=2.0))

    async with stage.running():
        await trio.sleep(5)

    assert ready_from(stage) == 2.0


async def test_nothing_is_missing_where_there_is_nothing_essential(stage: Stage, autojump_clock: MockClock) -> None:
    async with stage.running():
        assert ready_from(stage) == 0.0


async def test_a_service_has_finished_when_only_residents_are_left(stage: Stage, autojump_clock: MockClock) -> None:
    db = stage.add("db", resident=True)
    stage.add("a", returns(2), uses=[db], restart=policy(ON_FAILURE))
    stage.add("b", returns(5), uses=[db], restart=policy(ON_FAILURE))

    async with stage.running():
        await stage.finished.wait()
        assert trio.current_time() == 5.0
        assert db.state is State.READY


async def test_a_service_of_residents_only_goes_on(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("db", resident=True)

    async with stage.running():
        await trio.sleep(1000)

    assert not stage.finished.is_set()


async def test_an_illegal_move_changes_nothing(stage: Stage, autojump_clock: MockClock) -> None:
    child = stage.add("a")

    async with stage.running() as supervisor:
        await trio.sleep(1)
        with pytest.raises(ValueError, match="cannot go from ready to created"):
            supervisor._move(child, State.CREATED)
        assert child.state is State.READY


async def fail_when_cancelled() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("cleanup")
