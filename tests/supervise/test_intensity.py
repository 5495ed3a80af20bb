"""How often a child is restarted in a row, and after how long. Source: OTP supervisor(3), intensity."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from kernel._core.events import ComponentFailed, StateChanged
from kernel._core.lifecycle import State
from kernel._core.policies import RestartHistory, RestartPolicy
from kernel._core.spec import Strategy
from kernel._supervise.child import Group
from kernel._supervise.life import Life
from kernel.errors import RestartLimitError

from ._stage import Script, Stage, fails, policy


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_exactly_max_restarts_are_allowed(stage: Stage, autojump_clock: MockClock, limit: int) -> None:
    """Source: OTP: more than MaxR restarts end it."""
    child = stage.add("a", fails(1), restart=policy(max_restarts=limit, window=100.0))

    async with stage.running():
        await trio.sleep(50)

    assert len(stage.at("+a")) == limit + 1
    assert child.state is State.FAILED


async def test_as_many_failures_as_max_restarts_are_survived(stage: Stage, autojump_clock: MockClock) -> None:
    child = stage.add("a", fails(1), fails(1), fails(1), Script(), restart=policy(max_restarts=3, window=100.0))

    async with stage.running():
        await trio.sleep(50)
        assert child.state is State.READY


@pytest.mark.parametrize(("window", "lives"), [(10.0, 91), (10.5, 2), (1000.0, 2)])
async def test_a_row_is_over_when_the_child_was_ready_for_the_window(
    stage: Stage, autojump_clock: MockClock, window: float, lives: int
) -> None:
    stage.add("a", fails(10), restart=policy(max_restarts=1, window=window))

    async with stage.running():
        await trio.sleep(1000)

    assert len(stage.at("+a")) == lives


async def test_a_healthy_life_ends_the_row_and_not_only_its_waits(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a", fails(1), fails(1), fails(5), fails(1), fails(1), restart=policy(max_restarts=3, window=5.0))

    async with stage.running():
        await trio.sleep(50)

    assert stage.at("-a") == [1.0, 3.0, 9.0, 11.0, 13.0, 15.0]
    assert stage.given_up == ["a"]


@pytest.mark.parametrize("window", [1.0, 30.0, 10_000.0])
@pytest.mark.parametrize("start_timeout", [30.0, 60.0])
@pytest.mark.parametrize("limit", [1, 7, 8, 12, 40])
@pytest.mark.parametrize("hangs", [False, True])
async def test_what_never_comes_up_fails_for_good_in_bounded_time_whatever_the_numbers(
    stage: Stage, autojump_clock: MockClock, window: float, start_timeout: float, limit: int, hangs: bool
) -> None:
    script = Script(opening=math.inf) if hangs else Script(fails_to_open=ValueError("broken"))
    limits = RestartPolicy(max_restarts=limit, window=window)
    stage.add("a", script, restart=limits, start_timeout=start_timeout)

    async with stage.running():
        await trio.sleep(80_000)

    [failed] = [at for at, event in stage.timed if isinstance(event, StateChanged) and event.new is State.FAILED]
    assert failed <= (limit + 1) * start_timeout * hangs + limit * limits.backoff_max


@pytest.mark.parametrize("grouped", [False, True])
async def test_by_default_what_needs_two_minutes_to_come_back_is_survived(
    stage: Stage, autojump_clock: MockClock, grouped: bool
) -> None:
    limits = RestartPolicy(jitter=0.0)
    group = Group(Strategy.ONE_FOR_ONE, RestartHistory(limits, lambda: 0.0)) if grouped else None
    child = stage.add("a", restart=limits, group=group)

    async def body(life: Life) -> None:
        if trio.current_time() < 120.0:
            raise OSError("away")
        life.started()
        with life.working():
            await trio.sleep_forever()

    child.body = body
    async with stage.running():
        await trio.sleep(180)
        assert child.state is State.READY


async def test_the_error_of_too_many_restarts_says_the_limit_and_has_the_last_failure_as_its_cause(
    stage: Stage, autojump_clock: MockClock
) -> None:
    error = ValueError("broken")
    stage.add("a", fails(error=error), restart=policy(max_restarts=2, window=30.0))

    async with stage.running():
        await trio.sleep(50)

    (tired,) = stage.supervisor.errors
    assert isinstance(tired, RestartLimitError)
    assert tired.__cause__ is error
    assert "2" in str(tired)
    assert "30" in str(tired)


async def test_a_restart_storm_is_bounded_in_starts_and_in_reports(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a", Script(fails_to_open=ValueError("broken")), restart=policy(max_restarts=5, backoff_initial=0.0))

    async with stage.running():
        await trio.sleep(10_000)

    assert stage.states("a").count(State.STARTING) == 6
    assert len(stage.of(ComponentFailed)) == 6


async def test_waits_grow_by_the_factor_up_to_the_maximum(stage: Stage, autojump_clock: MockClock) -> None:
    growing = policy(backoff_initial=1.0, backoff_factor=3.0, backoff_max=10.0)
    stage.add("a", Script(fails_to_open=ValueError("broken")), restart=growing)

    async with stage.running():
        await trio.sleep(40)

    assert [event.restart_in for event in stage.of(ComponentFailed)] == [1.0, 3.0, 9.0, 10.0, 10.0, 10.0]


async def test_waits_start_anew_after_a_healthy_interval(stage: Stage, autojump_clock: MockClock) -> None:
    growing = policy(backoff_factor=2.0, window=5.0)
    stage.add("a", fails(1), fails(1), fails(5), fails(1), Script(), restart=growing)

    async with stage.running():
        await trio.sleep(40)

    assert [event.restart_in for event in stage.of(ComponentFailed)] == [1.0, 2.0, 1.0, 2.0]


async def test_time_before_it_was_ready_is_not_a_healthy_interval(stage: Stage, autojump_clock: MockClock) -> None:
    slow = Script(opening=20.0, lasts=1.0, raises=ValueError("broken"))
    stage.add("a", slow, slow, Script(), restart=policy(backoff_factor=2.0, window=5.0))

    async with stage.running():
        await trio.sleep(60)

    assert [event.restart_in for event in stage.of(ComponentFailed)] == [1.0, 2.0]


async def test_being_recalled_does_not_count_as_a_restart(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a", fails(1), fails(1), fails(1), Script())
    b = stage.add("b", uses=[a], restart=policy(max_restarts=0))

    async with stage.running():
        await trio.sleep(20)
        assert b.state is State.READY

    assert len(stage.at("+b")) == 4


async def test_failures_while_waiting_to_be_recalled_do_not_count(stage: Stage, autojump_clock: MockClock) -> None:
    """`b` breaks because `a` is gone, while `c`, which goes first, is still closing."""
    a = stage.add("a", fails(1), Script())
    b = stage.add("b", fails(1.5), Script(), uses=[a], restart=policy(max_restarts=0))
    stage.add("c", Script(closing=1.0), uses=[b])

    async with stage.running():
        await trio.sleep(20)
        assert b.state is State.READY

    assert len(stage.failures("b")) == 1
