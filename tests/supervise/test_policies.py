"""When a child that ended is started again. Source: OTP supervisor(3), restart types; `docs/reference/manifest.md`."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from kernel._core.events import ComponentFailed
from kernel._core.lifecycle import State
from kernel._core.policies import Restart
from kernel.errors import RestartLimitError, StartupError

from ._stage import ALWAYS, NEVER, ON_FAILURE, Script, Stage, fails, policy, returns

AT_ITS_END = [returns(), fails(), Script(opening=math.inf), Script(fails_to_open=StartupError("wrong port"))]
ENDINGS = ["returned", "raised", "not_ready", "refused"]
TABLE = {
    ALWAYS: [State.READY, State.READY, State.READY, State.FAILED],
    ON_FAILURE: [State.STOPPED, State.READY, State.READY, State.FAILED],
    NEVER: [State.STOPPED, State.FAILED, State.FAILED, State.FAILED],
}


@pytest.mark.parametrize("restart", list(Restart), ids=lambda one: one.value)
@pytest.mark.parametrize("ending", range(4), ids=ENDINGS)
async def test_the_restart_table(stage: Stage, autojump_clock: MockClock, restart: Restart, ending: int) -> None:
    """Source: OTP, permanent, transient and temporary."""
    child = stage.add("a", AT_ITS_END[ending], Script(), restart=policy(restart), start_timeout=1.0)

    async with stage.running():
        await trio.sleep(5)
        found = child.state

    assert found is TABLE[restart][ending]


@pytest.mark.parametrize("restart", list(Restart), ids=lambda one: one.value)
async def test_a_child_that_the_supervisor_stopped_is_not_started_again(
    stage: Stage, autojump_clock: MockClock, restart: Restart
) -> None:
    """Source: OTP, terminate_child."""
    stage.add("a", restart=policy(restart))

    async with stage.running():
        await trio.sleep(1)

    assert stage.log == "+a -a"
    assert stage.states("a")[-2:] == [State.STOPPING, State.STOPPED]


@pytest.mark.parametrize("restart", list(Restart), ids=lambda one: one.value)
async def test_whatever_its_policy_a_child_comes_back_with_what_it_uses(
    stage: Stage, autojump_clock: MockClock, restart: Restart
) -> None:
    """Unlike OTP, where a temporary child that a sibling's restart ended is gone: `never` speaks of its own ends."""
    a = stage.add("a", fails(), Script())
    stage.add("b", uses=[a], restart=policy(restart))

    async with stage.running():
        await trio.sleep(5)

    assert stage.log == "+a +b -a -b +a +b -b -a"


async def test_a_child_that_never_restarts_and_fails_does_not_touch_its_siblings(
    stage: Stage, autojump_clock: MockClock
) -> None:
    """Source: OTP, temporary."""
    stage.add("a", fails(), restart=policy(NEVER), essential=False)
    sibling = stage.add("b")

    async with stage.running():
        await trio.sleep(0.5)
        life = sibling.life
        await trio.sleep(5)
        assert sibling.life is life

    assert stage.given_up == []


async def test_a_failure_is_reported_with_the_wait_that_follows(stage: Stage, autojump_clock: MockClock) -> None:
    error = ValueError("broken")
    stage.add("a", fails(error=error), Script())

    async with stage.running():
        await trio.sleep(5)

    assert [(event.error, event.restart_in) for event in stage.of(ComponentFailed)] == [(error, 1.0)]
    assert stage.supervisor.errors == []


async def test_a_return_under_always_is_reported_as_an_error(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a", returns(), Script())

    async with stage.running():
        await trio.sleep(5)

    assert [str(error) for error in stage.failures("a")] == [
        (
            "a returned, and its restart policy is always: "
            'write restart.policy = "on_failure" if it may, oneshot or main = true if it is done once'
        )
    ]


async def test_a_missed_start_timeout_is_reported_with_what_was_said_meanwhile(
    stage: Stage, autojump_clock: MockClock
) -> None:
    child = stage.add("a", Script(opening=math.inf), restart=policy(NEVER), start_timeout=2.5)

    async with stage.running():
        await trio.sleep(2)
        stage.supervisor.report(child, State.DEGRADED, "refused")
        await trio.sleep(3)

    assert [str(error) for error in stage.failures("a")] == ["a was not ready within start_timeout = 2.5 s: refused"]


async def test_a_missed_start_timeout_is_reported_with_its_seconds(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a", Script(opening=math.inf), Script(), start_timeout=2.5)

    async with stage.running():
        await trio.sleep(5)

    assert [str(error) for error in stage.failures("a")] == ["a was not ready within start_timeout = 2.5 s"]
    assert stage.at("+a") == [3.5]


async def test_start_timeout_ends_when_the_child_is_ready(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a", Script(opening=0.9), start_timeout=1.0)

    async with stage.running():
        await trio.sleep(100)

    assert stage.log == "+a -a"


async def test_a_startup_error_in_a_group_of_errors_is_final(stage: Stage, autojump_clock: MockClock) -> None:
    error = ExceptionGroup("two", [ValueError("a"), StartupError("wrong port")])
    child = stage.add("a", Script(fails_to_open=error))

    async with stage.running():
        await trio.sleep(1)

    assert child.state is State.FAILED
    assert stage.supervisor.errors == [error]


async def test_an_essential_child_that_fails_for_good_is_told_of_once(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a", fails(), restart=policy(max_restarts=0))

    async with stage.running():
        await trio.sleep(5)

    assert stage.given_up == ["a"]
    assert [type(error) for error in stage.supervisor.errors] == [RestartLimitError]


async def test_a_child_that_is_not_essential_fails_alone(stage: Stage, autojump_clock: MockClock) -> None:
    child = stage.add("a", fails(), restart=policy(max_restarts=0), essential=False)
    stage.add("b")

    async with stage.running():
        await trio.sleep(5)

    assert child.state is State.FAILED
    assert stage.given_up == []
    assert stage.supervisor.errors == []
    assert [stage.log_of("a"), stage.log_of("b")] == ["+a -a", "+b -b"]
