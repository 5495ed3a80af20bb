"""What a component could not send off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import structlog
import trio
import trio.testing

from kernel import Event
from kernel._core.losses import PERIOD
from kernel.abc import Losses
from kernel.testing import fake_context


@attrs.frozen(kw_only=True)
class Lost(Event):
    count: int
    reason: str


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def losses(events: list[Event]) -> Losses:
    context = attrs.evolve(fake_context("driver/d", events=events), log=structlog.get_logger())
    return Losses(context, "things", lambda count, reason: Lost(component="driver/d", count=count, reason=reason))


def told(logs: list[Any]) -> list[tuple[str, int]]:
    return [(line["event"], line.get("count", line.get("lost"))) for line in logs]


async def test_losses_are_told_when_they_begin_and_when_they_are_over(
    autojump_clock: trio.testing.MockClock, logs: list[Any]
) -> None:
    events: list[Event] = []
    tally = losses(events)
    for _ in range(3):
        tally.take(5)
        tally.lose(5, "away")
        await trio.sleep(1)
    tally.take()
    tally.sent()
    await trio.sleep(1)

    assert told(logs) == [("things_lost", 5), ("things_sent_again", 10)]
    assert [(event.count, event.reason) for event in events if isinstance(event, Lost)] == [(5, "away")] * 3


async def test_what_comes_and_goes_fills_no_log_and_is_told_in_full(
    autojump_clock: trio.testing.MockClock, logs: list[Any]
) -> None:
    tally = losses([])
    for _ in range(30):
        tally.take(2)
        tally.lose(1, "away")
        await trio.sleep(1)
        tally.sent(1)
        await trio.sleep(1)
    await trio.sleep(PERIOD)
    tally.take()
    tally.sent()
    await trio.sleep(1)
    tally.finish("the stop did not wait longer")

    assert told(logs) == [("things_lost", 1), ("things_sent_again", 0), ("things_lost", 29), ("things_sent_again", 0)]


async def test_what_waits_at_the_end_is_lost_and_nothing_is_told_after_it(
    autojump_clock: trio.testing.MockClock, logs: list[Any]
) -> None:
    events: list[Event] = []
    tally = losses(events)
    tally.take(7)
    tally.sent(3)
    tally.finish("late")
    await trio.to_thread.run_sync(tally.lose, 4, "away")
    await trio.sleep(1)

    assert told(logs) == [("things_lost", 4)]
    assert logs[0]["reason"] == "late"
    assert [event.count for event in events if isinstance(event, Lost)] == [4]


async def test_an_end_with_nothing_left_says_nothing(logs: list[Any]) -> None:
    tally = losses([])
    tally.take(2)
    tally.sent(2)
    tally.finish("late")
    await trio.lowlevel.checkpoint()

    assert not logs
