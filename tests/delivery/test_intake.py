"""Slots: who gets one, who is cut, and what is said of it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock
from typing_extensions import override

from kernel import Ack, Envelope, Outcome, Return
from kernel._core.events import EventHub
from kernel._core.router import Router
from kernel._delivery.attempt import Verdict
from kernel._delivery.hold import Hold
from kernel._delivery.intake import KernelIntake
from kernel._delivery.judge import Judge
from kernel._delivery.leash import Attempting, Leash
from kernel._delivery.pipeline import Pipeline
from kernel.abc import Delivery, Work, current_work

MARK: ContextVar[str] = ContextVar("mark", default="")


def intake(nursery: trio.Nursery, concurrency: int = 1) -> KernelIntake:
    pipeline = Pipeline(Router.of([]), Judge(None), {}, Hold(1, lambda: None))
    return KernelIntake("dispatcher/test", concurrency, [], pipeline, EventHub(), nursery)


async def test_a_slot_is_free_again_after_its_body(nursery: trio.Nursery) -> None:
    slots = intake(nursery)
    async with slots.slot():
        assert slots.in_flight == 1

    assert slots.in_flight == 0


async def test_a_task_knows_the_request_that_it_works_for_and_so_do_those_it_starts(nursery: trio.Nursery) -> None:
    slots, seen = intake(nursery), []

    async def look() -> None:
        await trio.lowlevel.checkpoint()
        work = current_work()
        seen.append(work and work.label)

    await look()
    async with slots.slot("GET /"):
        await look()
        async with trio.open_nursery() as several:
            several.start_soon(look)
    await look()

    assert seen == [None, "GET /", "GET /", None]


async def test_who_waits_gets_the_slot_of_who_leaves(autojump_clock: object, nursery: trio.Nursery) -> None:
    slots, order = intake(nursery), []

    async def occupy(name: str) -> None:
        async with slots.slot(name):
            order.append(name)
            await trio.sleep(1)

    async with trio.open_nursery() as several:
        for name in "abc":
            several.start_soon(occupy, name)

    assert sorted(order) == ["a", "b", "c"]
    assert trio.current_time() == pytest.approx(3)


async def test_a_cut_ends_the_bodies_of_slots_early_and_quietly(nursery: trio.Nursery) -> None:
    slots = intake(nursery)
    async with slots.slot():
        slots.cut_slots()
        await trio.sleep_forever()

    assert slots.in_flight == 0


async def test_a_slot_that_comes_free_after_the_cut_is_cut_too(nursery: trio.Nursery) -> None:
    slots = intake(nursery)
    slots.cut_slots()
    ran = False
    async with slots.slot():
        await trio.lowlevel.checkpoint()
        ran = True

    assert not ran


async def test_culprits_name_the_worker_the_label_and_the_line(nursery: trio.Nursery) -> None:
    slots = intake(nursery)
    inside = trio.Event()

    async def request() -> None:
        async with slots.slot("GET /", worker="api"):
            inside.set()
            await trio.sleep_forever()

    nursery.start_soon(request)
    await inside.wait()
    [culprit] = slots.culprits()

    assert culprit.startswith("worker/api GET / at ")
    assert "test_intake.py:" in culprit
    nursery.cancel_scope.cancel()


class Request(Work):
    label = "GET /"
    worker = "api"
    task: Any = None

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self.cuts = 0

    def cut(self) -> None:
        self.cuts += 1


async def test_work_takes_a_slot_until_it_leaves(nursery: trio.Nursery) -> None:
    slots, first, second = intake(nursery), Request(), Request()
    slots.enter_nowait(first)
    with pytest.raises(trio.WouldBlock):
        slots.enter_nowait(second)
    seen = slots.in_flight, slots.culprits()[0].partition(" at ")[0]
    slots.leave(first)
    await slots.enter(second)
    slots.leave(second)

    assert seen == (1, "worker/api GET /")
    assert slots.in_flight == 0


async def test_work_that_does_not_count_takes_no_slot_and_is_waited_for_and_cut(nursery: trio.Nursery) -> None:
    slots, apart, idle = intake(nursery), Request(), trio.Event()
    slots.enter_nowait(Request())
    slots.enter_nowait(apart, counts=False)

    async def wait() -> None:
        await slots.wait_idle()
        idle.set()

    nursery.start_soon(wait)
    slots.cut_slots()
    for work in list(slots._works):
        await trio.testing.wait_all_tasks_blocked()
        assert not idle.is_set()
        slots.leave(work)
    await trio.testing.wait_all_tasks_blocked()

    assert apart.cuts == 1
    assert idle.is_set()


async def test_work_that_gives_its_slot_up_lets_others_in_and_is_waited_for_and_cut(nursery: trio.Nursery) -> None:
    slots, apart, idle = intake(nursery), Request(), trio.Event()
    slots.enter_nowait(apart)
    had_one = slots.give_up_slot(apart), slots.give_up_slot(apart), slots.give_up_slot(Request())
    second = Request()
    slots.enter_nowait(second)
    in_flight = slots.in_flight
    with pytest.raises(trio.WouldBlock):
        slots.enter_nowait(Request())

    async def wait() -> None:
        await slots.wait_idle()
        idle.set()

    nursery.start_soon(wait)
    slots.leave(second)
    await trio.testing.wait_all_tasks_blocked()
    was_idle = idle.is_set()
    slots.cut_slots()
    slots.leave(apart)
    await trio.testing.wait_all_tasks_blocked()

    assert had_one == (True, False, False)
    assert (in_flight, apart.cuts, was_idle, idle.is_set()) == (2, 1, False, True)


async def test_who_waits_gets_the_slot_that_is_given_up(nursery: trio.Nursery) -> None:
    slots, first, second, inside = intake(nursery), Request(), Request(), trio.Event()
    slots.enter_nowait(first)

    async def enter() -> None:
        await slots.enter(second)
        inside.set()

    nursery.start_soon(enter)
    await trio.testing.wait_all_tasks_blocked()
    slots.give_up_slot(first)
    await inside.wait()

    assert slots.in_flight == 2


async def test_work_that_comes_after_the_cut_is_cut_at_once(nursery: trio.Nursery) -> None:
    slots, late = intake(nursery), Request()
    slots.cut_slots()
    slots.enter_nowait(late)

    assert late.cuts == 1


async def test_waiting_until_idle_returns_at_once_when_nothing_is_in_flight(nursery: trio.Nursery) -> None:
    await intake(nursery).wait_idle()


@attrs.define(eq=False)
class Plain(Delivery):
    name: str
    outcomes: list[Outcome] = attrs.field(factory=list[Outcome])

    @property
    def envelope(self) -> Envelope:
        return Envelope(subject="s", id=self.name)

    @property
    def attempt(self) -> int:
        return 1

    @property
    def redelivered(self) -> bool:
        return False

    async def settle(self, outcome: Outcome) -> None:
        await trio.lowlevel.checkpoint()
        self.outcomes.append(outcome)


@attrs.define(eq=False)
class Noting(Attempting):
    """Notes what each attempt finds: its task, and what is in the context; and leaves something there."""

    tasks: list[trio.lowlevel.Task] = attrs.field(factory=list[trio.lowlevel.Task])
    found: list[str] = attrs.field(factory=list[str])

    @override
    async def attempt(self, delivery: Delivery, leash: Leash | None = None) -> Verdict:
        self.tasks.append(trio.lowlevel.current_task())
        self.found.append(MARK.get())
        await trio.sleep(1)
        MARK.set(delivery.envelope.id)
        return Verdict(Return())

    @override
    def close(self) -> None:
        pass


def noting(nursery: trio.Nursery, concurrency: int) -> tuple[Noting, KernelIntake]:
    attempts = Noting()
    return attempts, KernelIntake("dispatcher/test", concurrency, [], attempts, EventHub(), nursery)


async def test_tasks_are_used_again_and_there_are_never_more_than_slots(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    attempts, slots = noting(nursery, 3)
    deliveries = [Plain(str(number)) for number in range(12)]
    for delivery in deliveries:
        await slots.submit(delivery)
    await slots.wait_idle()

    assert [delivery.outcomes for delivery in deliveries] == [[Return()]] * 12
    assert len(set(attempts.tasks)) == 3
    assert trio.current_time() == pytest.approx(4)
    nursery.cancel_scope.cancel()


async def test_what_a_handler_leaves_in_the_context_is_not_for_the_next(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    attempts, slots = noting(nursery, 1)
    for name in "abc":
        await slots.submit(Plain(name))
    await slots.wait_idle()

    assert attempts.found == ["", "", ""]
    assert len(set(attempts.tasks)) == 1
    nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class Brief(Attempting):
    """Waits for nothing but its turn."""

    begun: int = 0
    ended: int = 0

    @override
    async def attempt(self, delivery: Delivery, leash: Leash | None = None) -> Verdict:
        self.begun += 1
        await trio.lowlevel.checkpoint()
        self.ended += 1
        return Verdict(Return())

    @override
    def close(self) -> None:
        pass


async def test_a_source_that_never_waits_lets_the_others_do_what_it_brought(nursery: trio.Nursery) -> None:
    """Of 32 that it brought all have begun before the next one is taken, and those before them have ended."""
    attempts = Brief()
    slots = KernelIntake("dispatcher/test", 1000, [], attempts, EventHub(), nursery)
    seen: list[tuple[int, int]] = []
    for number in range(321):
        await slots.submit(Plain(str(number)))
        seen.append((attempts.begun, attempts.ended))

    assert [begun for begun, _ in seen] == [number // 32 * 32 for number in range(321)]
    assert all(ended >= begun - 32 for begun, ended in seen)
    nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class Hasty(Attempting):
    """Gives each attempt one second, and needs none."""

    begun: list[str] = attrs.field(factory=list[str])

    @override
    async def attempt(self, delivery: Delivery, leash: Leash | None = None) -> Verdict:
        assert leash is not None
        self.begun.append(delivery.envelope.id)
        leash.hold(leash.began + 1)
        await trio.lowlevel.checkpoint()
        return Verdict(Return())

    @override
    def close(self) -> None:
        pass


async def test_the_deadline_that_passes_while_a_task_is_being_woken_is_not_that_of_its_next_delivery(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    attempts = Hasty()
    slots = KernelIntake("dispatcher/test", 1, [], attempts, EventHub(), nursery)
    await slots.submit(Plain("a"))
    await slots.wait_idle()
    await slots.submit(Plain("b"))
    autojump_clock.jump(2)
    await slots.wait_idle()

    assert attempts.begun == ["a", "b"]
    nursery.cancel_scope.cancel()


async def test_what_a_source_brings_once_it_is_cancelled_goes_back_without_being_begun(nursery: trio.Nursery) -> None:
    attempts = Brief()
    slots = KernelIntake("dispatcher/test", 100, [], attempts, EventHub(), nursery)
    delivery = Plain("a")
    with trio.CancelScope() as accepting:
        accepting.cancel()
        await slots.submit(delivery)

    assert accepting.cancelled_caught
    assert delivery.outcomes == [Return()]
    assert (attempts.begun, slots.in_flight) == (0, 0)
    nursery.cancel_scope.cancel()


async def test_a_task_that_is_idle_goes_with_its_nursery(autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        _, slots = noting(nursery, 2)
        await slots.submit(Plain("a"))
        await slots.wait_idle()
        idle = len(nursery.child_tasks)
        nursery.cancel_scope.cancel()

    assert idle == 1
    assert not nursery.child_tasks


@pytest.mark.parametrize("closed", [False, True], ids=["cut", "closed"])
@pytest.mark.parametrize("how", ["submit", "submit revocable", "handle"])
async def test_what_comes_after_the_cut_is_returned_and_costs_no_slot(
    autojump_clock: object, nursery: trio.Nursery, closed: bool, how: str
) -> None:
    attempts, late = Noting(), Plain("late")
    cut = trio.Event()

    async def live(task_status: trio.TaskStatus[KernelIntake]) -> None:
        async with trio.open_nursery() as in_flight:
            slots = KernelIntake("dispatcher/test", 1, [], attempts, EventHub(), in_flight)
            task_status.started(slots)
            await cut.wait()
            slots.cut_slots()
            in_flight.cancel_scope.cancel()

    slots: KernelIntake = await nursery.start(live)
    cut.set()
    if closed:
        await trio.testing.wait_all_tasks_blocked()
    else:
        slots.cut_slots()
    outcome = Return()
    match how:
        case "submit":
            await slots.submit(late)
        case "submit revocable":
            await slots.submit(late, revocable_as="late")
        case _:
            outcome = await slots.handle(late)

    assert late.outcomes == [Return()]
    assert outcome == Return()
    assert not slots.revoke("late")
    assert slots.in_flight == 0
    assert attempts.tasks == []


async def test_a_source_that_does_not_wait_is_told_when_it_would_have_to(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    attempts, slots = noting(nursery, 2)
    taken = [Plain("a"), Plain("b")]
    for delivery in taken:
        slots.submit_nowait(delivery)
    with pytest.raises(trio.WouldBlock):
        slots.submit_nowait(Plain("full"))
    await slots.wait_idle()
    slots.pause()
    with pytest.raises(trio.WouldBlock):
        slots.submit_nowait(Plain("paused"))
    slots.resume()
    slots.cut_slots()
    with pytest.raises(trio.WouldBlock):
        slots.submit_nowait(Plain("cut"))

    assert [delivery.outcomes for delivery in taken] == [[Return()]] * 2
    assert (len(attempts.found), slots.taken, slots.in_flight) == (2, 2, 0)
    nursery.cancel_scope.cancel()


async def test_a_source_that_does_not_wait_cannot_keep_the_others_waiting(nursery: trio.Nursery) -> None:
    attempts = Brief()
    slots = KernelIntake("dispatcher/test", 1000, [], attempts, EventHub(), nursery)
    for number in range(32):
        slots.submit_nowait(Plain(str(number)))
    with pytest.raises(trio.WouldBlock):
        slots.submit_nowait(Plain("33"))
    await slots.submit(Plain("33"))

    assert attempts.begun == 32
    slots.submit_nowait(Plain("34"))
    nursery.cancel_scope.cancel()


async def test_what_is_submitted_without_waiting_can_be_revoked(autojump_clock: object, nursery: trio.Nursery) -> None:
    _, slots = noting(nursery, 1)
    delivery = Plain("a")
    slots.submit_nowait(delivery, revocable_as="a")
    await trio.testing.wait_all_tasks_blocked()

    assert slots.revoke("a")
    await slots.wait_idle()
    assert delivery.outcomes == [Ack()]
    assert trio.current_time() == pytest.approx(0)
    assert not slots.revoke("a")
    nursery.cancel_scope.cancel()
