"""How often a child is restarted, and after how long. Source: OTP supervisor(3), intensity and period."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from kernel._core.events import ComponentFailed
from kernel._core.lifecycle import State
from kernel.errors import RestartLimitError

from ._stage import Script, Stage, fails, policy


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_exactly_max_restarts_are_allowed(stage: Stage, autojump_clock: MockClock, limit: int) -> None:
    """Source: OTP: more than MaxR restarts within MaxT seconds end it."""
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


async def test_restarts_outside_the_window_are_forgotten(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a", fails(10), restart=policy(max_restarts=1, window=10.5))

    async with stage.running():
        await trio.sleep(1000)

    assert len(stage.at("+a")) == 91
    assert stage.given_up == []


async def test_a_restart_at_the_edge_of_the_window_counts(stage: Stage, autojump_clock: MockClock) -> None:
    """Source: OTP, a restart MaxT seconds ago is within MaxT seconds."""
    stage.add("a", fails(10), restart=policy(max_restarts=1, window=11.0))

    async with stage.running():
        await trio.sleep(1000)

    assert len(stage.at("+a")) == 2


async def test_the_window_slides(stage: Stage, autojump_clock: MockClock) -> None:
    """Failures at 1, 7, 13 and 15: never three within 10 s until the last."""
    stage.add("a", fails(1), fails(5), fails(5), fails(1), restart=policy(max_restarts=2, window=10.0))

    async with stage.running():
        await trio.sleep(50)

    assert stage.at("-a") == [1.0, 7.0, 13.0, 15.0]
    assert stage.given_up == ["a"]


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
