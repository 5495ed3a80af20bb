"""The kill switch of a worker: when it trips, who waits, how it closes, and that a stop waits for nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kernel import Ack, DeadLetter, KillSwitchChanged, Outcome, Return, State, SwitchState, handles
from kernel._core.policies import KillSwitchPolicy
from kernel._delivery.kill_switch import KillSwitch
from kernel.errors import PermanentError

from ._feed import parcel, running

SWITCH: dict[str, object] = {"failure_rate": 0.5, "minimum": 4, "window": 60.0, "pause": 30.0}
TABLE: dict[str, object] = {"kill_switch": SWITCH, "retry": {"attempts": 1}}


class Patient:
    """A worker that fails while it is told to; it remembers when it was called."""

    def __init__(self) -> None:
        self.calls: list[float] = []
        self.fails = True
        self.seconds = 0.0

    @property
    def worker(self) -> Callable[..., Any]:
        async def worker(payload: Any) -> None:
            self.calls.append(trio.current_time())
            await trio.sleep(self.seconds)
            if self.fails:
                raise PermanentError("ill")

        return worker


def changes(service: Any) -> list[str]:
    return [event.state.value for event in service.events if isinstance(event, KillSwitchChanged)]


async def test_too_many_failures_pause_the_worker_and_one_call_that_goes_well_ends_it(
    autojump_clock: MockClock,
) -> None:
    patient = Patient()
    async with running({"worker": patient.worker}, {"worker": TABLE}) as (feed, service):
        for number in range(4):
            await feed.settle(parcel(number))
        tripped = trio.current_time()
        degraded = service.kernel.states["worker/worker"]
        patient.fails = False
        outcomes = [await feed.settle(parcel(number)) for number in range(3)]
        ready = service.kernel.states["worker/worker"]
        events = [event for event in service.events if isinstance(event, KillSwitchChanged)]

    assert (degraded, ready) == (State.DEGRADED, State.READY)
    assert outcomes == [Ack()] * 3
    assert [round(call - tripped, 6) for call in patient.calls[4:]] == [30, 30, 30]
    assert [(event.component, event.state, event.reason) for event in events] == [
        ("worker/worker", SwitchState.OPEN, "4 of 4 calls failed within 60 s"),
        ("worker/worker", SwitchState.HALF_OPEN, "paused for 30 s; one call tries it"),
        ("worker/worker", SwitchState.CLOSED, "the call that tried it went well"),
    ]


async def test_while_one_call_tries_the_others_wait_and_if_it_fails_all_wait_again(autojump_clock: MockClock) -> None:
    patient = Patient()
    async with running({"worker": patient.worker}, {"worker": TABLE}, concurrency=5) as (feed, service):
        for number in range(4):
            await feed.settle(parcel(number))
        tripped = trio.current_time()
        patient.seconds = 10.0
        for number in range(5):
            feed.send.send_nowait(parcel(number))
        await trio.sleep(45)
        first_round = [round(call - tripped, 6) for call in patient.calls[4:]]
        patient.fails = False
        await service.wait_settled(9)

    assert first_round == [30]
    assert [round(call - tripped, 6) for call in patient.calls[4:]] == [30, 70, 80, 80, 80]
    assert changes(service) == ["open", "half_open", "open", "half_open", "closed"]


@pytest.mark.parametrize(
    ("failures", "successes", "trips"),
    [(3, 0, False), (4, 0, True), (2, 2, True), (4, 5, False)],
    ids=["below the minimum", "all fail", "at the rate", "below the rate"],
)
async def test_it_trips_at_the_rate_and_not_below_the_minimum(
    failures: int, successes: int, trips: bool, autojump_clock: MockClock
) -> None:
    states: list[SwitchState] = []
    switch = KillSwitch(KillSwitchPolicy(minimum=4), lambda state, _: states.append(state))
    for failed in [False] * successes + [True] * failures:
        switch.leave(is_probe=await switch.enter(), failed=failed)

    assert (states == [SwitchState.OPEN]) is trips


async def test_failures_that_are_long_past_do_not_count(autojump_clock: MockClock) -> None:
    states: list[SwitchState] = []
    switch = KillSwitch(KillSwitchPolicy(minimum=4, window=60.0), lambda state, _: states.append(state))
    for _ in range(100):
        switch.leave(is_probe=await switch.enter(), failed=True)
        await trio.sleep(21)

    assert states == []
    assert len(switch._parts) <= 4


async def test_what_is_remembered_does_not_grow_with_the_calls(autojump_clock: MockClock) -> None:
    switch = KillSwitch(KillSwitchPolicy(), lambda *_: None)
    for number in range(5000):
        switch.leave(is_probe=await switch.enter(), failed=number % 3 == 0)
        await trio.sleep(0.1)

    assert len(switch._parts) <= 21


async def test_a_call_that_was_under_way_when_it_tripped_changes_nothing(autojump_clock: MockClock) -> None:
    states: list[SwitchState] = []
    switch = KillSwitch(KillSwitchPolicy(minimum=1), lambda state, _: states.append(state))
    await switch.enter()
    switch.leave(is_probe=await switch.enter(), failed=True)
    switch.leave(is_probe=False, failed=False)

    assert states == [SwitchState.OPEN]
    assert switch.state is SwitchState.OPEN


async def test_a_probe_that_is_cut_lets_another_try(autojump_clock: MockClock) -> None:
    switch = KillSwitch(KillSwitchPolicy(minimum=1, pause=30.0), lambda *_: None)
    switch.leave(is_probe=await switch.enter(), failed=True)
    probes: list[bool] = []

    async def call(failed: bool | None) -> None:
        probes.append(await switch.enter())
        await trio.sleep(1)
        switch.leave(is_probe=probes[-1], failed=failed)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, None)
        await trio.sleep(30.5)
        nursery.start_soon(call, False)

    assert probes == [True, True]
    assert switch.state is SwitchState.CLOSED


async def test_timeouts_count_and_outcomes_that_are_returned_do_not(autojump_clock: MockClock) -> None:
    async def slow(payload: Any) -> None:
        await trio.sleep_forever()

    async def strict(payload: Any) -> Outcome:
        return DeadLetter("not for me")

    for worker, expected in ((slow, ["open"]), (strict, [])):
        async with running({"worker": worker}, {"worker": {**TABLE, "timeout": 1.0}}) as (feed, service):
            for number in range(4):
                await feed.settle(parcel(number))

            assert changes(service) == expected


async def test_other_workers_of_the_dispatcher_go_on(autojump_clock: MockClock) -> None:
    class Ill:
        @handles("ill")
        async def handle(self, payload: Any) -> None:
            raise PermanentError("ill")

    class Well:
        @handles("well")
        async def handle(self, payload: Any) -> None: ...

    async with running({"ill": Ill, "well": Well}, {"ill": TABLE}, concurrency=3) as (feed, service):
        for number in range(4):
            await feed.settle(parcel(number, subject="ill"))
        waiting = parcel(5, subject="ill")
        feed.send.send_nowait(waiting)
        begin = trio.current_time()
        outcomes = [await feed.settle(parcel(number, subject="well")) for number in range(20)]

        assert trio.current_time() - begin < 1
        assert outcomes == [Ack()] * 20
        assert waiting.outcomes == []
        assert service.kernel.states["worker/well"] is State.READY


async def test_a_stop_returns_at_once_what_waits_for_a_paused_worker(autojump_clock: MockClock) -> None:
    patient = Patient()
    waiting = [parcel(number) for number in range(5)]
    async with running({"worker": patient.worker}, {"worker": TABLE}, concurrency=3) as (feed, _):
        for number in range(4):
            await feed.settle(parcel(number))
        for one in waiting:
            feed.send.send_nowait(one)
        await trio.sleep(1)
        begin = trio.current_time()

    assert trio.current_time() - begin < 0.1
    assert [one.outcomes for one in waiting] == [[Return()]] * 4 + [[]]
    assert len(patient.calls) == 4


async def test_a_message_whose_deadline_passes_in_the_pause_is_put_aside(autojump_clock: MockClock) -> None:
    patient = Patient()
    async with running({"worker": patient.worker}, {"worker": TABLE}) as (feed, _):
        for number in range(4):
            await feed.settle(parcel(number))
        outcome = await feed.settle(parcel(5, deadline=trio.current_time() + 5))

    assert outcome == DeadLetter("expired: its deadline had passed")
    assert len(patient.calls) == 4


async def test_an_instance_that_restarts_in_the_pause_is_degraded_again(autojump_clock: MockClock) -> None:
    class Worker:
        async def run(self) -> None:
            await trio.sleep(5)
            raise OSError("loop broke")

        @handles("#")
        async def handle(self, payload: Any) -> None:
            raise PermanentError("ill")

    table = {**TABLE, "kill_switch": {**SWITCH, "minimum": 1, "pause": 100.0}}
    async with running({"worker": Worker}, {"worker": table}) as (feed, service):
        await feed.settle(parcel(1))
        await trio.sleep(7)

        assert service.kernel.states["worker/worker"] is State.DEGRADED


async def test_a_failure_worker_may_have_a_kill_switch_too(autojump_clock: MockClock) -> None:
    async def broken(payload: Any) -> None:
        raise ValueError("first")

    patient = Patient()
    tables: dict[str, Any] = {
        "broken": {"failure_worker": "undertaker", "retry": {"attempts": 1}},
        "undertaker": {"dispatcher": "", **TABLE},
    }
    async with running({"broken": broken, "undertaker": patient.worker}, tables) as (feed, _):
        for number in range(4):
            await feed.settle(parcel(number))
        begin = trio.current_time()
        patient.fails = False
        outcome = await feed.settle(parcel(5))
        waited = trio.current_time() - begin

    assert outcome == Ack()
    assert waited == pytest.approx(30)
