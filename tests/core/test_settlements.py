"""Facts about what brokers send for deliveries in tasks of their own, and for what of it the end of a driver waits."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from kernel.abc import Settlement, Settlements


class Copy(Settlement[str]):
    """One whose broker takes whatever it is sent."""

    async def is_taken(self) -> bool:
        return self.receipt is not None


async def go_on(settlements: Settlements, settlement: Settlement[str], seconds: float, ended: list[str]) -> None:
    with settlements.running(settlement):
        await trio.sleep(seconds)
        ended.append("answered")
    if settlement.scope.cancelled_caught:
        ended.append("cancelled")


@pytest.mark.parametrize(
    ("receipt", "is_kept", "seconds", "lasts", "how"),
    [
        ("the broker may have it", False, 1.5, 1.5, ["answered"]),
        ("the broker may have it", True, 1.5, 1.5, ["answered"]),
        (None, False, 0.5, 0.5, ["answered"]),
        (None, True, 0.5, 0.0, ["cancelled"]),
        ("the broker never answers", False, 60.0, 2.0, []),
        (None, False, 60.0, 2.0, []),
    ],
)
async def test_the_end_waits_for_what_the_broker_may_have_and_no_longer(
    receipt: str | None, is_kept: bool, seconds: float, lasts: float, how: list[str], autojump_clock: MockClock
) -> None:
    settlements, settlement, ended = Settlements(), Copy(), list[str]()
    settlement.is_kept = is_kept
    if receipt is not None:
        settlement.written(receipt)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_on, settlements, settlement, seconds, ended)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await settlements.aclose()
        assert trio.current_time() - began == pytest.approx(lasts)
        assert ended == how
        nursery.cancel_scope.cancel()


async def test_the_end_waits_though_it_is_cancelled(autojump_clock: MockClock) -> None:
    settlements, ended = Settlements(), list[str]()
    settlement = Copy()
    settlement.written("the broker may have it")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_on, settlements, settlement, 1.0, ended)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await settlements.aclose()

    assert ended == ["answered"]


async def test_nothing_under_way_takes_no_time(autojump_clock: MockClock) -> None:
    began = trio.current_time()

    await Settlements().aclose()

    assert trio.current_time() == began


async def test_the_end_waits_for_what_was_expected_and_had_not_yet_begun(autojump_clock: MockClock) -> None:
    """The task that goes on may get its first turn after the end: nothing of it has been sent by then."""
    settlements, settlement, ended = Settlements(), Copy(), list[str]()
    async with trio.open_nursery() as nursery:
        settlements.expect(settlement)
        nursery.start_soon(go_on, settlements, settlement, 1.0, ended)
        await settlements.aclose()
        nursery.cancel_scope.cancel()

    assert ended == ["answered"]


async def test_what_was_expected_can_be_given_up_before_it_has_begun(autojump_clock: MockClock) -> None:
    settlements, settlement, ended = Settlements(), Copy(), list[str]()
    settlements.expect(settlement)
    settlement.scope.cancel()
    await go_on(settlements, settlement, 1.0, ended)

    assert ended == ["cancelled"]
