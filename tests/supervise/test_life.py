"""The scopes of one life, and their deadlines."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from kernel._supervise.life import CLOSING_SHARE, Life


@pytest.fixture
def life() -> Life:
    return Life(10.0, 4.0, lambda value: None, lambda: None)


async def test_a_start_has_start_timeout_seconds(life: Life, autojump_clock: MockClock) -> None:
    with life.begin() as whole:
        await trio.sleep_forever()

    assert whole.cancelled_caught
    assert trio.current_time() == 10.0
    assert not life.is_ready


async def test_a_ready_life_has_no_deadline(life: Life, autojump_clock: MockClock) -> None:
    with life.begin():
        await trio.sleep(9)
        life.started()
        await trio.sleep(1000)

    assert life.is_ready
    assert life.ready_at == 9.0


async def test_started_passes_its_value_on_once(autojump_clock: MockClock) -> None:
    given: list[object] = []
    life = Life(10.0, 4.0, given.append, lambda: None)
    life.started("resource")

    with pytest.raises(RuntimeError, match="twice"):
        life.started("again")
    assert given == ["resource"]


async def test_a_stop_cancels_what_is_inside_and_leaves_the_rest_running(life: Life, autojump_clock: MockClock) -> None:
    with life.begin():
        life.started()
        with life.inner:
            life.request_stop(drain_until=-math.inf)
            await trio.sleep_forever()
        await trio.sleep(1)

    assert life.inner.cancelled_caught
    assert not life.whole.cancelled_caught


async def test_a_stop_of_what_is_not_ready_cancels_it_at_once(life: Life, autojump_clock: MockClock) -> None:
    with life.begin():
        life.request_stop(drain_until=100.0)
        await trio.sleep_forever()

    assert trio.current_time() == 0.0


async def test_to_stop_accepting_leaves_what_is_in_flight(life: Life, autojump_clock: MockClock) -> None:
    life.started()
    life.stop_accepting()

    assert life.inner.cancel_called
    assert not life.stopping
    assert life.drain.deadline == life.whole.deadline == math.inf


async def test_closing_is_cancelled_in_time_to_end_within_stop_timeout(life: Life, autojump_clock: MockClock) -> None:
    with life.begin():
        life.started()
        life.request_stop(drain_until=-math.inf)
        await trio.sleep_forever()

    assert trio.current_time() == 4.0 * CLOSING_SHARE
    assert life.patience.deadline == 4.0


async def test_closing_counts_from_the_end_of_the_drain(life: Life, autojump_clock: MockClock) -> None:
    life.started()
    life.request_stop(drain_until=15.0)
    before = (life.drain.deadline, life.whole.deadline, life.patience.deadline)
    await trio.sleep(5)
    life.drained()

    assert before == (15.0, 18.0, 19.0)
    assert (life.whole.deadline, life.patience.deadline) == (8.0, 9.0)


async def test_asking_again_brings_the_end_forward(life: Life, autojump_clock: MockClock) -> None:
    """A driver breaks while what uses it drains."""
    life.started()
    life.request_stop(drain_until=15.0)
    await trio.sleep(1)
    life.request_stop(drain_until=-math.inf)

    assert (life.drain.deadline, life.whole.deadline, life.patience.deadline) == (-math.inf, 4.0, 5.0)


async def test_asking_again_does_not_put_the_end_off(life: Life, autojump_clock: MockClock) -> None:
    """A stop begins during a recall."""
    life.started()
    life.request_stop(drain_until=-math.inf)
    await trio.sleep(1)
    life.request_stop(drain_until=15.0)
    life.drained()

    assert (life.drain.deadline, life.whole.deadline, life.patience.deadline) == (-math.inf, 3.0, 4.0)


async def test_a_life_that_ends_by_itself_closes_within_stop_timeout(life: Life, autojump_clock: MockClock) -> None:
    with life.begin():
        life.started()
        await trio.sleep(100)
        life.drained()
        await trio.sleep_forever()

    assert trio.current_time() == 103.0


async def test_becoming_ready_while_stopping_does_not_lift_the_deadline(life: Life, autojump_clock: MockClock) -> None:
    with life.begin():
        life.request_stop(drain_until=-math.inf)
        life.started()

    assert life.whole.deadline == 3.0
