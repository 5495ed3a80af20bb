"""A timer in a whole service."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import pytest
import trio
from kernel_timer import Tick, TickSkipped

from kernel import Ack, handles
from kernel.errors import PlanError
from kernel.testing import open_kernel

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

TICKS: list[Tick] = []


async def report(tick: Tick) -> None:
    TICKS.append(tick)
    await trio.sleep(90 if len(TICKS) == 1 else 0)


async def test_a_worker_gets_its_ticks_in_a_service(autojump_clock: MockClock) -> None:
    TICKS.clear()
    manifest = {
        "dispatchers": {"clock": {"plugin": "timer", "cron": "*/1 * * * *"}},
        "workers": {"report": {"use": f"{__name__}:report", "dispatcher": "clock"}},
    }

    async with open_kernel(manifest) as service:
        await service.wait_settled(2)

    assert [tick.missed for tick in TICKS] == [0, 1]
    assert all(tick.scheduled.tzinfo is not None and tick.scheduled.second == 0 for tick in TICKS)
    assert TICKS[1].scheduled.astimezone(UTC) > TICKS[0].scheduled
    assert [event.count for event in service.events if isinstance(event, TickSkipped)] == [1]
    assert [settled.outcome for settled in service.settled] == [Ack(), Ack()]


def once_on(driver: dict[str, object]) -> dict[str, object]:
    """Return the manifest of a service whose timer fires once in a cluster."""
    return {
        "drivers": {"place": driver},
        "dispatchers": {"clock": {"plugin": "timer", "cron": "* * * * *", "once": True, "driver": "place"}},
        "workers": {"report": {"use": f"{__name__}:report", "dispatcher": "clock"}},
    }


async def test_ticks_of_a_service_survive_its_restart(autojump_clock: MockClock, tmp_path: Path) -> None:
    manifest = once_on({"plugin": "sqlite", "path": str(tmp_path / "queues.db")})
    TICKS.clear()

    for _ in range(2):
        async with open_kernel(manifest) as service:
            await service.wait_settled(1)
        await trio.sleep(300)

    assert [tick.missed for tick in TICKS] == [0, 6]  # the first takes 90 s


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"driver": {"plugin": "memory"}}, "needs a driver that provides Leasing, and driver/place provides"),
        (
            {"timer": {"driver": None}},
            'is missing: plugin "timer" needs a driver that provides Leasing; there are: place',
        ),
        (
            {"timer": {"once": False}},
            "as it is configured here: write `once = true` to have a tick once in a cluster, or take out `driver`",
        ),
        ({"timer": {"interval": 0}}, "interval must be above 0"),
    ],
)
async def test_a_timer_that_fires_once_needs_a_driver_with_leases(
    changes: dict[str, dict[str, object]], text: str
) -> None:
    manifest: dict[str, Any] = once_on(changes.get("driver", {"plugin": "sqlite", "path": "queues.db"}))
    manifest["dispatchers"]["clock"] |= changes.get("timer", {})
    manifest["dispatchers"]["clock"] = {
        key: value for key, value in manifest["dispatchers"]["clock"].items() if value is not None
    }

    with pytest.raises(PlanError) as caught:
        async with open_kernel(manifest):
            pass

    assert [text in str(problem) for problem in caught.value.problems] == [True]


class Two:
    """Has more handlers than a timer has subjects."""

    @handles("tick.clock")
    async def often(self, tick: Tick) -> None: ...

    @handles("tick.nightly", "tick.other")
    async def seldom(self, tick: Tick) -> None: ...


class Every:
    """Would be called with every tick, if nothing fitted better."""

    @handles("tick.*")
    async def each(self, tick: Tick) -> None: ...


NEVER = (
    'would never be called: all that dispatcher/clock brings has the subject "{}", and one handler is called with it'
)


@pytest.mark.parametrize(
    ("workers", "timer", "uncalled"),
    [
        (["Two"], {}, [("tick.clock", "seldom, for tick.nightly, tick.other,")]),
        (["Two"], {"subject": "tick.other"}, [("tick.other", "often, for tick.clock,")]),
        (
            ["Two", "Every"],
            {},
            [("tick.clock", "each, for tick.*,"), ("tick.clock", "seldom, for tick.nightly, tick.other,")],
        ),
        (["Two", "Every"], {"fan_out": True}, [("tick.clock", "seldom, for tick.nightly, tick.other,")]),
        (["Two"], {"subject": "x"}, [("x", "often, for tick.clock,"), ("x", "seldom, for tick.nightly, tick.other,")]),
        (["Every"], {}, []),
    ],
)
async def test_a_handler_that_no_tick_is_for_is_an_error(
    workers: list[str], timer: dict[str, object], uncalled: list[tuple[str, str]]
) -> None:
    manifest = {
        "dispatchers": {"clock": {"plugin": "timer", "interval": 1e6, **timer}},
        "workers": {use.lower(): {"use": f"{__name__}:{use}", "dispatcher": "clock"} for use in workers},
    }
    problems: list[str] = []
    try:
        async with open_kernel(manifest):
            pass
    except PlanError as error:
        problems = [problem.text for problem in error.problems]

    assert sorted(problems) == sorted(f"{what} {NEVER.format(subject)}" for subject, what in uncalled)
