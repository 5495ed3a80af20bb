"""Children that belong together. Source: OTP supervisor(3), restart strategies."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from kernel._core.events import ComponentFailed
from kernel._core.lifecycle import State
from kernel._core.policies import RestartHistory
from kernel._core.spec import Strategy
from kernel._supervise.child import Group
from kernel.errors import DependencyError, RestartLimitError

from ._stage import NEVER, ON_FAILURE, Script, Stage, fails, policy, returns

ONE, ALL, REST = Strategy.ONE_FOR_ONE, Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE
every_strategy = pytest.mark.parametrize("strategy", list(Strategy), ids=lambda one: one.value)


@every_strategy
async def test_members_start_in_order_and_stop_in_reverse(
    stage: Stage, autojump_clock: MockClock, strategy: Strategy
) -> None:
    """Source: OTP, start and termination order."""
    stage.add_group(strategy, "a", "b", "c", a=Script(opening=1.0))

    async with stage.running():
        await trio.sleep(5)

    assert stage.log == "+a +b +c -c -b -a"


async def test_one_for_one_restarts_only_the_failed_member(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add_group(ONE, "a", "b", "c", b=[fails(), Script()])

    async with stage.running():
        await trio.sleep(5)

    assert stage.log == "+a +b +c -b +b -c -b -a"


async def test_a_restart_under_one_for_one_does_not_keep_a_sibling_from_restarting(
    stage: Stage, autojump_clock: MockClock
) -> None:
    growing = policy(backoff_factor=50.0, backoff_max=50.0)
    stage.add_group(ONE, "a", "b", restart=growing, a=[fails(1.0), Script()], b=[fails(1.5), Script()])

    async with stage.running():
        await trio.sleep(100)

    assert stage.at("+a") == [0.0, 2.0]
    assert stage.at("+b") == [0.0, 51.5]


async def test_one_for_all_ends_all_in_reverse_before_any_starts(stage: Stage, autojump_clock: MockClock) -> None:
    members = stage.add_group(ALL, "a", "b", "c", "d", b=[fails(), Script()], a=Script(closing=1.4))

    async with stage.running():
        await trio.sleep(10)
        assert [member.state for member in members] == [State.READY] * 4

    assert stage.log == "+a +b +c +d -b -d -c -a +a +b +c +d -d -c -b -a"
    assert stage.at("+a") == [0.0, 3.4]


async def test_one_for_all_starts_members_one_after_the_other(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add_group(ALL, "a", "b", "c", a=Script(opening=1.0), c=[fails(), Script()])

    async with stage.running():
        await trio.sleep(10)

    assert [stage.at("+a")[1], stage.at("+b")[1], stage.at("+c")[1]] == [4.0, 4.0, 4.0]


async def test_rest_for_one_restarts_only_the_later_ones(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add_group(REST, "a", "b", "c", "d", b=[fails(), Script()])

    async with stage.running():
        await trio.sleep(10)

    assert stage.log == "+a +b +c +d -b -d -c +b +c +d -d -c -b -a"


async def test_the_last_member_of_rest_for_one_restarts_alone(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add_group(REST, "a", "b", "c", c=[fails(), Script()])

    async with stage.running():
        await trio.sleep(10)

    assert stage.log == "+a +b +c -c +c -c -b -a"


async def test_the_first_member_of_rest_for_one_restarts_all(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add_group(REST, "a", "b", "c", a=[fails(), Script()])

    async with stage.running():
        await trio.sleep(10)

    assert stage.log == "+a +b +c -a -c -b +a +b +c -c -b -a"


@every_strategy
async def test_restarts_of_all_members_count_together(
    stage: Stage, autojump_clock: MockClock, strategy: Strategy
) -> None:
    """Source: OTP, the intensity is the supervisor's."""
    limit = policy(max_restarts=2, window=1000.0)
    stage.add_group(
        strategy,
        "a",
        "b",
        "c",
        restart=limit,
        a=[fails(10), Script()],
        b=[fails(20), fails(20)],
        c=[Script(), Script()],
    )

    async with stage.running():
        await trio.sleep(500)

    (tired,) = stage.supervisor.errors
    assert isinstance(tired, RestartLimitError)
    assert stage.given_up == ["b"]


@every_strategy
async def test_a_row_of_a_group_goes_on_until_all_were_healthy(
    stage: Stage, autojump_clock: MockClock, strategy: Strategy
) -> None:
    """`c` breaks each 10 s, `a` only after 40 s, in which it was ready for longer than the window."""
    limit = policy(max_restarts=5, window=30.0)
    stage.add_group(strategy, "a", "b", "c", restart=limit, a=fails(40.5), c=fails(9))

    async with stage.running():
        await trio.sleep(500)

    assert len(stage.given_up) == 1
    assert len([event for event in stage.of(ComponentFailed) if event.restart_in is not None]) == 5


@every_strategy
async def test_a_group_over_its_limit_ends_all_its_members(
    stage: Stage, autojump_clock: MockClock, strategy: Strategy
) -> None:
    """Source: OTP: the supervisor terminates all child processes and then itself."""
    members = stage.add_group(strategy, "a", "b", "c", restart=policy(max_restarts=0), b=fails(1))
    for member in members:
        member.essential = False
    bystander = stage.add("x")

    async with stage.running():
        await trio.sleep(10)
        assert [member.state for member in members] == [State.FAILED] * 3
        assert bystander.state is State.READY

    assert stage.log_of("a", "b", "c") == "+a +b +c -b -c -a"
    assert stage.given_up == []
    assert stage.supervisor.errors == []


async def test_a_group_fails_the_service_if_any_member_is_essential(stage: Stage, autojump_clock: MockClock) -> None:
    members = stage.add_group(ALL, "a", "b", restart=policy(max_restarts=0), b=fails(1))
    members[1].essential = False

    async with stage.running():
        await trio.sleep(10)

    assert stage.given_up == ["b"]
    assert [type(error) for error in stage.supervisor.errors] == [RestartLimitError]


async def test_a_member_in_backoff_ends_when_its_group_fails(stage: Stage, autojump_clock: MockClock) -> None:
    limit = policy(max_restarts=1, backoff_initial=100.0, backoff_max=100.0)
    members = stage.add_group(ONE, "a", "b", restart=limit, a=fails(1), b=fails(2))
    for member in members:
        member.essential = False

    async with stage.running():
        await trio.sleep(10)
        assert [member.state for member in members] == [State.FAILED] * 2


async def test_those_that_use_a_member_of_a_failed_group_fail_too(stage: Stage, autojump_clock: MockClock) -> None:
    members = stage.add_group(ALL, "a", "b", restart=policy(max_restarts=0), a=fails(1))
    for member in members:
        member.essential = False
    user = stage.add("user", uses=[members[1]], essential=False)

    async with stage.running():
        await trio.sleep(10)

    assert user.state is State.FAILED
    assert [type(error) for error in stage.failures("user")] == [DependencyError]
    assert stage.log == "+a +b +user -a -user -b"


async def test_an_error_while_a_failed_group_closes_is_not_the_services(
    stage: Stage, autojump_clock: MockClock
) -> None:
    closing = Script(fails_to_close=ValueError("close"))
    members = stage.add_group(ALL, "a", "b", restart=policy(max_restarts=0), a=fails(1), b=closing)
    for member in members:
        member.essential = False

    async with stage.running():
        await trio.sleep(10)

    assert [str(error) for error in stage.failures("b")] == ["close"]
    assert stage.supervisor.errors == []


@every_strategy
async def test_a_member_that_never_restarts_fails_alone(
    stage: Stage, autojump_clock: MockClock, strategy: Strategy
) -> None:
    """Source: OTP, temporary children do not make the strategy act."""
    members = stage.add_group(strategy, "a", "b", "c", b=fails())
    members[1].policy = policy(NEVER)
    members[1].essential = False

    async with stage.running():
        await trio.sleep(10)

    assert stage.log == "+a +b +c -b -c -a"
    assert members[1].state is State.FAILED


async def test_a_member_that_is_done_does_not_come_back_with_the_others(
    stage: Stage, autojump_clock: MockClock
) -> None:
    members = stage.add_group(ALL, "a", "b", "c", a=returns(1), c=[fails(2), Script()])
    members[0].policy = policy(ON_FAILURE)

    async with stage.running():
        await trio.sleep(10)

    assert stage.log == "+a +b +c -a -c -b +b +c -c -b"


async def test_two_members_that_fail_at_once_are_one_restart(stage: Stage, autojump_clock: MockClock) -> None:
    """Source: OTP: what ends while its siblings are being terminated is restarted with them, and not counted."""
    limit = policy(max_restarts=1)
    stage.add_group(ALL, "a", "b", "c", restart=limit, a=[fails(1), Script()], b=[fails(1), Script()])

    async with stage.running():
        await trio.sleep(10)

    assert stage.given_up == []
    assert len(stage.failures("a")) == len(stage.failures("b")) == 1
    assert [len(stage.at(f"+{name}")) for name in "abc"] == [2, 2, 2]


async def test_a_member_that_fails_during_a_siblings_restart_belongs_to_it(
    stage: Stage, autojump_clock: MockClock
) -> None:
    """`b` breaks at 1.5 s, while `c`, which goes first, takes from 1 s to 2 s to close."""
    limit = policy(max_restarts=1)
    stage.add_group(
        ALL, "a", "b", "c", restart=limit, a=[fails(1), Script()], b=[fails(1.5), Script()], c=Script(closing=1.0)
    )

    async with stage.running():
        await trio.sleep(10)

    assert stage.given_up == []
    assert [len(stage.at(f"+{name}")) for name in "abc"] == [2, 2, 2]


async def test_a_member_that_fails_in_its_backoff_order_waits_for_the_longer_one(
    stage: Stage, autojump_clock: MockClock
) -> None:
    """`a` fails while `b`, after it, is in backoff: `b` comes back once both waits are over."""
    waits = policy(backoff_initial=4.0, backoff_factor=1.0)
    stage.add_group(REST, "a", "b", restart=waits, a=[fails(3), Script()], b=[fails(1), Script()])

    async with stage.running():
        await trio.sleep(20)

    assert stage.at("+a") == [0.0, 7.0]
    assert stage.at("+b") == [0.0, 7.0]


async def test_a_group_restarts_when_what_one_member_uses_does(stage: Stage, autojump_clock: MockClock) -> None:
    db = stage.add("db", fails(1), Script())
    group = Group(ALL, RestartHistory(policy(max_restarts=0), lambda: 0.0))
    a = stage.add("a", group=group)
    stage.add("b", uses=[db], after=[a], group=group)

    async with stage.running():
        await trio.sleep(10)

    assert stage.log_of("a", "b") == "+a +b -b -a +a +b -b -a"
    assert stage.given_up == []


async def test_the_order_of_a_group_holds_across_a_member_that_is_done(stage: Stage, autojump_clock: MockClock) -> None:
    members = stage.add_group(ALL, "a", "b", "c", a=[fails(2), Script(opening=1.0)], b=returns(1))
    members[1].policy = policy(ON_FAILURE)

    async with stage.running():
        await trio.sleep(10)

    assert stage.log == "+a +b +c -b -a -c +a +c -c -a"
