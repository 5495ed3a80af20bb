"""The stop: its order, its bounds, and what may come between."""

from __future__ import annotations

import linecache
import math

import pytest
import trio
from trio.testing import MockClock

from kernel._core.events import StopTimedOut
from kernel._core.lifecycle import State
from kernel._supervise.life import Life
from kernel._supervise.supervisor import Supervisor

from ._stage import Script, Stage, fails, policy


async def test_a_stop_may_begin_while_a_dependent_is_being_recalled(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a", fails(), Script())
    stage.add("b", Script(closing=1.0), uses=[a])

    async with stage.running():
        await trio.sleep(1.5)

    assert stage.log == "+a +b -a -b"
    assert trio.current_time() == 2.0


async def test_a_stop_goes_in_reverse_order_of_the_start(stage: Stage, autojump_clock: MockClock) -> None:
    """Source: OTP, termination order."""
    a = stage.add("a", Script(opening=0.1, closing=0.1))
    b = stage.add("b", Script(opening=0.1, closing=0.1), uses=[a])
    stage.add("c", Script(opening=0.1, closing=0.1), after=[b])

    async with stage.running():
        await trio.sleep(5)

    assert stage.log == "+a +b +c -c -b -a"


async def test_independent_children_start_and_stop_at_the_same_time(stage: Stage, autojump_clock: MockClock) -> None:
    for name in "abc":
        stage.add(name, Script(opening=1.0, closing=1.0))

    async with stage.running():
        await trio.sleep(5)

    assert [stage.at(f"+{name}") for name in "abc"] == [[1.0]] * 3
    assert [stage.at(f"-{name}") for name in "abc"] == [[6.0]] * 3


async def test_a_hung_close_is_cancelled_after_three_quarters_of_stop_timeout(
    stage: Stage, autojump_clock: MockClock
) -> None:
    """Unlike OTP's kill, with a last quarter for its cleanup."""
    child = stage.add("a", Script(closing=math.inf), stop_timeout=4.0)

    async with stage.running():
        await trio.sleep(1)

    assert stage.at("-a") == [4.0]
    assert child.state is State.STOPPED
    assert stage.supervisor.cut
    assert stage.left_behind() == []


async def test_what_ignores_its_cancellation_is_left_behind_at_stop_timeout_with_its_line(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.add("a", Script(closing=30.0, stubborn=True), stop_timeout=4.0)
    stopped_at = math.inf

    async with trio.open_nursery() as nursery:
        stage.supervisor.start(nursery)
        await trio.sleep(1)
        await stage.supervisor.stop(drain_until=-math.inf)
        stopped_at = trio.current_time()

    (event,) = stage.of(StopTimedOut)
    assert stopped_at == 5.0
    assert stage.supervisor.cut
    file, line = event.where.rsplit(":", 1)
    assert "trio.sleep(script.closing)" in linecache.getline(file, int(line))


async def test_what_a_child_left_behind_uses_is_closed_all_the_same(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a")
    stage.add("b", Script(closing=30.0, stubborn=True), uses=[a], stop_timeout=4.0)

    async with stage.running():
        await trio.sleep(1)

    assert stage.at("-a") == [5.0]


async def test_the_bound_of_a_stop_is_the_longest_path(stage: Stage, autojump_clock: MockClock) -> None:
    hung = Script(closing=1000.0, stubborn=True)
    a = stage.add("a", hung, stop_timeout=1.0)
    b = stage.add("b", hung, uses=[a], stop_timeout=2.0)
    c = stage.add("c", hung, uses=[a], stop_timeout=4.0)
    stage.add("d", hung, uses=[b, c], stop_timeout=8.0)
    stage.add("e", hung, uses=[b], stop_timeout=9.0)

    async with trio.open_nursery() as nursery:
        stage.supervisor.start(nursery)
        await trio.sleep(1)
        await stage.supervisor.stop(drain_until=-math.inf)
        assert trio.current_time() == 1.0 + 13.0

    assert sorted(stage.left_behind()) == ["a", "b", "c", "d", "e"]


async def test_a_recall_under_way_does_not_lengthen_the_stop(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a", fails(1), Script())
    stage.add("b", Script(closing=1000.0, stubborn=True), uses=[a], stop_timeout=4.0)

    async with trio.open_nursery() as nursery:
        stage.supervisor.start(nursery)
        await trio.sleep(3)
        await stage.supervisor.stop(drain_until=100.0)
        assert trio.current_time() == 5.0

    assert stage.left_behind() == ["b"]


async def test_what_an_earlier_recall_left_behind_makes_a_stop_a_cut(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a", fails(1), Script())
    stage.add("b", Script(closing=1000.0, stubborn=True), uses=[a])

    async with trio.open_nursery() as nursery:
        stage.supervisor.start(nursery)
        await trio.sleep(10)
        assert not stage.supervisor.cut
        await stage.supervisor.stop(drain_until=-math.inf)
        assert stage.supervisor.cut


async def test_a_child_that_is_starting_is_cancelled_at_once(stage: Stage, autojump_clock: MockClock) -> None:
    child = stage.add("a", Script(opening=10.0))

    async with stage.running():
        await trio.sleep(1)

    assert trio.current_time() == 1.0
    assert child.state is State.STOPPED
    assert not stage.supervisor.cut


async def test_a_child_in_backoff_does_not_hold_the_stop(stage: Stage, autojump_clock: MockClock) -> None:
    child = stage.add("a", fails(1), restart=policy(backoff_initial=100.0, backoff_max=100.0))

    async with stage.running():
        await trio.sleep(2)

    assert trio.current_time() == 2.0
    assert stage.states("a")[-2:] == [State.BACKOFF, State.STOPPED]
    assert child.task is None


async def test_a_child_that_waits_for_a_dependency_never_starts(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a", Script(opening=10.0))
    stage.add("b", uses=[a])

    async with stage.running():
        await trio.sleep(1)

    assert stage.states("b") == [State.STOPPED]


async def test_a_stop_before_anything_ran_ends_everything(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a")

    async with stage.running():
        pass

    assert stage.states("a") == [State.STOPPED]


async def test_a_restart_whose_wait_ends_with_the_stop_does_not_begin(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a", fails(1), Script(opening=0.5))

    async with stage.running():
        await trio.sleep(2)

    assert stage.states("a").count(State.READY) == 1
    assert stage.states("a")[-1] is State.STOPPED


async def test_an_error_while_stopping_is_reported_and_the_stop_goes_on(
    stage: Stage, autojump_clock: MockClock
) -> None:
    first, second = ValueError("first"), ValueError("second")
    a = stage.add("a", Script(fails_to_close=second))
    stage.add("b", Script(fails_to_close=first), uses=[a])

    async with stage.running():
        await trio.sleep(1)

    assert stage.log == "+a +b -b -a"
    assert stage.supervisor.errors == [first, second]
    assert stage.failures("a") == [second]


async def test_an_error_of_the_very_last_child_is_not_lost(stage: Stage, autojump_clock: MockClock) -> None:
    error = ValueError("close")
    child = stage.add("a", Script(fails_to_close=error))

    async with trio.open_nursery() as nursery:
        stage.supervisor.start(nursery)
        await trio.sleep(1)
        await stage.supervisor.stop(drain_until=-math.inf)
        nursery.cancel_scope.cancel()
        assert stage.supervisor.errors == [error]
        assert child.state is State.STOPPED


async def test_what_brings_in_work_drains_before_it_closes(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a", Script(in_flight=3.0, closing=1.0), accepts=True)

    async with stage.running(drain=10.0):
        await trio.sleep(1)

    assert stage.at("-a") == [5.0]
    assert stage.states("a")[-3:] == [State.DRAINING, State.STOPPING, State.STOPPED]
    assert not stage.supervisor.cut
    assert a.life is None


async def test_what_is_in_flight_at_the_drain_deadline_is_cut(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a", Script(in_flight=30.0, closing=1.0), accepts=True)

    async with stage.running(drain=10.0):
        await trio.sleep(1)

    assert stage.at("-a") == [12.0]
    assert stage.supervisor.cut


async def test_the_seconds_to_close_count_from_the_end_of_the_drain(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a", Script(in_flight=3.0, closing=1000.0, stubborn=True), accepts=True, stop_timeout=4.0)

    async with trio.open_nursery() as nursery:
        stage.supervisor.start(nursery)
        await trio.sleep(1)
        await stage.supervisor.stop(drain_until=100.0)
        assert trio.current_time() == 8.0
        nursery.cancel_scope.cancel()


async def test_everything_stops_accepting_at_once(stage: Stage, autojump_clock: MockClock) -> None:
    """Also what has to wait for others before it may close."""
    a = stage.add("a", accepts=True)
    stage.add("b", Script(in_flight=3.0), uses=[a], accepts=True)

    async with stage.running(drain=10.0):
        await trio.sleep(1)
        inner = a.life.inner

    assert inner.cancel_called
    assert stage.at("-b") == [4.0]


async def test_a_hastened_stop_drains_no_more(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a", Script(in_flight=30.0), accepts=True)

    async with trio.open_nursery() as nursery:
        stage.supervisor.start(nursery)
        await trio.sleep(1)
        nursery.start_soon(hasten_at, stage.supervisor, 3.0)
        await stage.supervisor.stop(drain_until=60.0)

    assert stage.at("-a") == [3.0]


@pytest.mark.parametrize("hastened_at", [1.0, 3.0, 11.0])
async def test_a_hastened_stop_leaves_behind_what_heeds_nothing(
    stage: Stage, autojump_clock: MockClock, hastened_at: float
) -> None:
    child = stage.add("a", accepts=True, stop_timeout=2.0)

    async def body(life: Life) -> None:
        life.started()
        with life.inner, trio.CancelScope(shield=True):
            await trio.sleep(1000)

    child.body = body
    async with trio.open_nursery() as nursery:
        stage.supervisor.start(nursery)
        await trio.sleep(1)
        nursery.start_soon(hasten_at, stage.supervisor, hastened_at)
        await stage.supervisor.stop(drain_until=16.0)
        assert trio.current_time() == hastened_at + 2.0

    assert stage.left_behind() == ["a"]


async def test_a_stop_hastened_before_it_begins_does_not_drain(stage: Stage, autojump_clock: MockClock) -> None:
    stage.add("a", Script(in_flight=30.0), accepts=True)

    async with stage.running(drain=60.0) as supervisor:
        await trio.sleep(1)
        supervisor.hasten()

    assert stage.at("-a") == [1.0]


async def test_a_recall_does_not_drain(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a", fails(1), Script())
    stage.add("b", Script(in_flight=30.0), uses=[a], accepts=True)

    async with stage.running():
        await trio.sleep(5)

    assert stage.at("-b") == [1.0, 5.0]


async def test_a_child_that_becomes_ready_while_it_is_stopped_stays_stopping(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.add("a", Script(opening=1.5, stubborn=True, closing=0.1))

    async with stage.running():
        await trio.sleep(1)

    assert stage.states("a") == [State.STARTING, State.STOPPING, State.STOPPED]


async def hasten_at(supervisor: Supervisor, time: float) -> None:
    await trio.sleep_until(time)
    supervisor.hasten()
