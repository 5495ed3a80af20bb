"""A timer in a whole service."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

import trio
from kernel_timer import Tick, TickSkipped

from kernel import Ack
from kernel.testing import open_kernel

if TYPE_CHECKING:
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
