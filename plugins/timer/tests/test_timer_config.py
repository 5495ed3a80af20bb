"""Mistakes in a timer's table are named before anything starts."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from kernel_timer import TimerConfig, TimerDispatcher

from kernel.errors import StartupError
from kernel.testing import fake_context, open_intake


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"cron": "* * * *"}, "must have five fields"),
        ({"cron": "* * * * * * *"}, "must have five fields"),
        ({"cron": "61 * * * * *"}, "bad second"),
        ({"cron": "@reboot"}, "'@reboot' is none of @yearly, .*@hourly"),
        ({"cron": "60 * * * *"}, "'60 .*': bad minute"),
        ({"cron": "0 0 30 2 *"}, "'0 0 30 2 \\*': bad day-of-month"),
        ({"cron": "0 0 */20 * 1L"}, "never comes"),
        ({"cron": "0 0 * * *", "zone": "Mars/Olympus"}, "zone 'Mars/Olympus' is not a time zone"),
        ({"cron": "0 0 * * *", "zone": "../etc/passwd"}, "is not a time zone"),
        ({"cron": "0 0 * * *", "zone": "Europe"}, "is not a time zone"),
        ({"interval": 0}, "interval must be above 0"),
        ({"interval": float("nan")}, "interval must be above 0"),
        ({"interval": float("inf")}, "finite"),
        ({"interval": 1, "jitter": -1}, "jitter must be 0 or more"),
        ({"interval": 1, "missed": "never"}, "missed"),
        ({"interval": 1, "max_missed": 0}, "max_missed"),
    ],
)
def test_a_wrong_value_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        TimerConfig(**fields)


@pytest.mark.parametrize(
    "cron", ["*/5 9-17 * * MON-FRI", "0 0 29 2 *", "0 0 L * *", "15 3 1,15 * *", "*/10 * * * * *", "@daily", "@hourly"]
)
def test_a_cron_expression_that_comes_is_taken(cron: str) -> None:
    assert list(TimerDispatcher.check(TimerConfig(cron=cron))) == []


OF = "between two ticks of cron"


@pytest.mark.parametrize("cron", ["*/5 * * * *", "0,1 4 * * *", "@hourly"])
def test_a_jitter_below_the_shortest_distance_is_taken(cron: str) -> None:
    assert list(TimerDispatcher.check(TimerConfig(cron=cron, jitter=59.0))) == []


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "give exactly one of interval and cron"),
        ({"interval": 1, "cron": "* * * * *"}, "give exactly one of interval and cron"),
        (
            {"interval": 1, "once": True, "immediate": True},
            "immediate does not go with once: each process starts, and a tick is one of all of them",
        ),
        ({"interval": 1, "zone": "Europe/Berlin"}, "zone is only for cron: an interval knows no time zone"),
        ({"interval": 1, "jitter": 1.0}, "jitter = 1 must be below interval = 1"),
        *(
            (
                {"cron": cron, "jitter": jitter},
                f"jitter = {jitter:g} must be below {shortest:g} s, the shortest time {OF}",
            )
            for cron, jitter, shortest in (
                ("*/5 * * * *", 7200.0, 300),
                ("*/5 * * * *", 300.0, 300),
                ("0,1 4 * * *", 60.0, 60),
                ("*/10 * * * * *", 10.0, 10),
                ("@daily", 86_400.0, 86_400),
            )
        ),
    ],
)
def test_values_that_do_not_fit_together_are_named(fields: dict[str, Any], text: str) -> None:
    assert list(TimerDispatcher.check(TimerConfig(**fields))) == [text]


async def test_a_timer_that_nobody_checked_does_not_start() -> None:
    timer = TimerDispatcher(config=TimerConfig(), context=fake_context("dispatcher/t"))

    async with open_intake() as intake:
        with pytest.raises(StartupError, match="exactly one"):
            await timer.accept(intake, task_status=trio.TASK_STATUS_IGNORED)


@pytest.mark.parametrize("lease", [0.0, 0.4, float("nan"), 90_000.0])
def test_a_lease_that_cannot_be_held_is_refused(lease: float) -> None:
    with pytest.raises(ValueError, match="lease"):
        TimerConfig(interval=1, once=True, lease=lease)
