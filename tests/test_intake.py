"""Slots: who gets one, who is cut, and what is said of it."""

from __future__ import annotations

import pytest
import trio

from kernel._dispatch import Pipeline
from kernel._events import EventHub
from kernel._intake import KernelIntake
from kernel._router import Router


def intake(nursery: trio.Nursery, concurrency: int = 1) -> KernelIntake:
    pipeline = Pipeline(Router.of([]), None, {})
    return KernelIntake("dispatcher/test", concurrency, [], pipeline, EventHub(), nursery)


async def test_a_slot_is_free_again_after_its_body(nursery: trio.Nursery) -> None:
    slots = intake(nursery)
    async with slots.slot():
        assert slots.in_flight == 1

    assert slots.in_flight == 0


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


async def test_waiting_until_idle_returns_at_once_when_nothing_is_in_flight(nursery: trio.Nursery) -> None:
    await intake(nursery).wait_idle()
