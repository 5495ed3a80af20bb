"""Who restarts when something that others depend on does, and in which order."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from kernel._core.lifecycle import State
from kernel.errors import DependencyError, StartupError

from ._stage import NEVER, ON_FAILURE, Script, Stage, fails, policy


async def test_dependents_stop_in_reverse_and_start_in_order_around_a_restart(
    stage: Stage, autojump_clock: MockClock
) -> None:
    a = stage.add("a", fails(), Script())
    b = stage.add("b", uses=[a])
    stage.add("c", uses=[b])

    async with stage.running():
        await trio.sleep(10)

    assert stage.log == "+a +b +c -a -c -b +a +b +c -c -b -a"


async def test_exactly_the_dependents_restart_and_siblings_keep_their_life(
    stage: Stage, autojump_clock: MockClock
) -> None:
    a = stage.add("a", fails(), Script())
    user = stage.add("user", uses=[a])
    other = stage.add("other")
    beside = stage.add("beside", uses=[other])

    async with stage.running():
        await trio.sleep(0.5)
        lives = [child.life for child in (user, other, beside)]
        await trio.sleep(5)
        after = [child.life for child in (user, other, beside)]

    assert after[0] is not lives[0]
    assert after[1:] == lives[1:]
    assert stage.log_of("a", "user") == "+a +user -a -user +a +user -user -a"


async def test_what_a_failed_child_uses_itself_is_not_touched(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a")
    stage.add("b", fails(), Script(), uses=[a])

    async with stage.running():
        await trio.sleep(5)

    assert stage.log == "+a +b -b +b -b -a"


async def test_a_diamond_restarts_once_and_in_order(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a", fails(), Script())
    b = stage.add("b", Script(opening=0.1), uses=[a])
    c = stage.add("c", Script(opening=0.2), uses=[a])
    stage.add("d", uses=[b, c])

    async with stage.running():
        await trio.sleep(5)

    assert stage.log_of("a", "b", "d") == "+a +b +d -a -d -b +a +b +d -d -b -a"
    assert stage.log_of("a", "c", "d") == "+a +c +d -a -d -c +a +c +d -d -c -a"


async def test_one_side_of_a_diamond_restarts_only_what_stands_on_it(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a")
    b = stage.add("b", fails(), Script(), uses=[a])
    c = stage.add("c", uses=[a])
    stage.add("d", uses=[b, c])

    async with stage.running():
        await trio.sleep(5)

    assert stage.log_of("b", "d") == "+b +d -b -d +b +d -d -b"
    assert stage.log_of("a", "c") == "+a +c -c -a"


async def test_what_only_comes_after_a_child_does_not_restart_with_it(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a", Script(opening=1.0, lasts=1.0, raises=ValueError("broken")), Script())
    stage.add("b", after=[a])

    async with stage.running():
        await trio.sleep(5)

    assert stage.log == "+a +b -a +a -b -a"


async def test_what_comes_after_a_child_starts_even_if_that_has_failed(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a", Script(fails_to_open=ValueError("broken")), restart=policy(NEVER), essential=False)
    stage.add("b", after=[a])

    async with stage.running():
        await trio.sleep(5)

    assert stage.log == "+b -b"


async def test_a_dependent_starts_once_what_it_uses_is_done(stage: Stage, autojump_clock: MockClock) -> None:
    """Something that prepares the ground and returns."""
    a = stage.add("a", Script(lasts=1.0), restart=policy(ON_FAILURE))
    stage.add("b", fails(2.0), Script(), uses=[a])

    async with stage.running():
        await trio.sleep(5)

    assert stage.at("+b") == [0.0, 3.0]


async def test_a_child_is_given_what_it_uses_anew(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a", fails(), Script())

    async with stage.running():
        await trio.sleep(0.5)
        before = a.value
        await trio.sleep(1)
        between = a.value
        await trio.sleep(1)
        assert (before, between, a.value) == ("a", None, "a")


async def test_a_child_and_its_dependent_that_fail_at_once_restart_in_order(
    stage: Stage, autojump_clock: MockClock
) -> None:
    a = stage.add("a", fails(1), Script())
    stage.add("b", fails(1), Script(), uses=[a])

    async with stage.running():
        await trio.sleep(10)

    assert len(stage.failures("a")) == len(stage.failures("b")) == 1
    assert stage.at("+a") == stage.at("+b") == [0.0, 2.0]


async def test_two_dependents_that_fail_at_once_restart_once_each(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a")
    stage.add("b", fails(1), Script(), uses=[a])
    stage.add("c", fails(1), Script(), uses=[a])

    async with stage.running():
        await trio.sleep(10)

    assert [stage.at("+a"), stage.at("+b"), stage.at("+c")] == [[0.0], [0.0, 2.0], [0.0, 2.0]]


async def test_a_dependent_in_backoff_waits_for_what_it_uses_too(stage: Stage, autojump_clock: MockClock) -> None:
    slow = policy(backoff_initial=5.0)
    a = stage.add("a", fails(1.5), Script(), restart=slow)
    stage.add("b", fails(1), Script(), uses=[a])

    async with stage.running():
        await trio.sleep(20)

    assert stage.at("+b") == [0.0, 6.5]


async def test_a_dependent_that_is_starting_is_recalled(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a", fails(1), Script())
    stage.add("b", Script(opening=1.5), uses=[a])

    async with stage.running():
        await trio.sleep(10)

    assert stage.at("+b") == [3.5]
    assert stage.failures("b") == []


async def test_a_child_closing_by_itself_stops_its_users_first(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a")
    stage.add("b", Script(closing=0.5), uses=[a])

    async with stage.running() as supervisor:
        await trio.sleep(1)
        await supervisor.stop_users(a)
        assert trio.current_time() == 1.5
        assert a.state is State.STOPPING
        assert stage.log == "+a +b -b"


async def test_stopping_the_users_of_a_child_that_is_not_up_moves_nothing(
    stage: Stage, autojump_clock: MockClock
) -> None:
    a = stage.add("a", Script(opening=5.0))

    async with stage.running() as supervisor:
        await trio.sleep(1)
        await supervisor.stop_users(a)
        assert a.state is State.STARTING


async def test_an_error_while_being_recalled_is_told_and_the_child_comes_back(
    stage: Stage, autojump_clock: MockClock
) -> None:
    a = stage.add("a", fails(1), Script())
    stage.add("b", Script(fails_to_close=ValueError("close")), Script(), uses=[a])

    async with stage.running():
        await trio.sleep(10)

    assert [str(error) for error in stage.failures("b")] == ["close"]
    assert len(stage.at("+b")) == 2
    assert stage.supervisor.errors == []


@pytest.mark.parametrize("seconds", [1.0, 0.0], ids=["running", "not_yet_started"])
async def test_users_of_a_child_that_failed_for_good_fail_with_its_name(
    stage: Stage, autojump_clock: MockClock, seconds: float
) -> None:
    bad = fails(seconds) if seconds else Script(fails_to_open=StartupError("wrong port"))
    a = stage.add("a", bad, restart=policy(NEVER), essential=False)
    b = stage.add("b", uses=[a], essential=False)
    c = stage.add("c", uses=[b], essential=False)
    other = stage.add("other")

    async with stage.running():
        await trio.sleep(5)
        assert other.state is State.READY

    assert (b.state, c.state) == (State.FAILED, State.FAILED)
    assert [(type(error), error.dependency) for error in stage.failures("b")] == [(DependencyError, "a")]
    assert [(type(error), error.dependency) for error in stage.failures("c")] == [(DependencyError, "b")]
    assert stage.supervisor.errors == []
    assert stage.given_up == []


async def test_an_essential_user_of_what_failed_for_good_fails_the_service(
    stage: Stage, autojump_clock: MockClock
) -> None:
    a = stage.add("a", fails(), restart=policy(NEVER), essential=False)
    b = stage.add("b", uses=[a])
    stage.add("c", uses=[b])

    async with stage.running():
        await trio.sleep(5)

    assert stage.given_up == ["b"]
    assert [type(error) for error in stage.supervisor.errors] == [DependencyError]


async def test_the_users_of_an_essential_child_that_failed_just_wait_for_the_stop(
    stage: Stage, autojump_clock: MockClock
) -> None:
    """One cause, told once."""
    error = StartupError("wrong port")
    a = stage.add("a", Script(fails_to_open=error))
    b = stage.add("b", uses=[a])

    async with stage.running():
        await trio.sleep(5)

    assert stage.given_up == ["a"]
    assert stage.supervisor.errors == [error]
    assert b.state is State.STOPPED


async def test_users_of_what_failed_are_stopped_in_reverse(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a", fails(), restart=policy(NEVER), essential=False)
    b = stage.add("b", Script(closing=0.2), uses=[a], essential=False)
    stage.add("c", Script(closing=0.2), uses=[b], essential=False)

    async with stage.running():
        await trio.sleep(5)

    assert stage.log == "+a +b +c -a -c -b"


async def test_a_failure_whose_text_cannot_be_had_does_not_break_the_supervisor(
    stage: Stage, autojump_clock: MockClock
) -> None:
    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    a = stage.add("a", fails(error=UnspeakableError()), restart=policy(NEVER), essential=False)

    async with stage.running():
        await trio.sleep(5)

    assert a.state is State.FAILED


async def test_a_child_does_not_start_on_what_has_gone_down_since_it_was_up(
    stage: Stage, autojump_clock: MockClock
) -> None:
    """`a` is up at first, and in backoff when `b` gets ready."""
    a = stage.add("a", fails(1), Script(), restart=policy(backoff_initial=5.0))
    b = stage.add("b", Script(opening=3.0))
    stage.add("c", uses=[a], after=[b])

    async with stage.running():
        await trio.sleep(10)

    assert stage.at("+c") == [6.0]
