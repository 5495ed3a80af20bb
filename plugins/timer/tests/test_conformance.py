"""The promises of `kernel.abc.Dispatcher`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from kernel_timer import TimerConfig, TimerDispatcher

from kernel.testing import check_dispatcher, fake_context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio.testing import MockClock

    from kernel.abc import Dispatcher
    from kernel.testing import Feed


async def feed(count: int) -> None:
    """Let so many ticks come."""
    await trio.sleep(60 * count)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [TimerConfig(interval=60), TimerConfig(interval=60, missed="all", immediate=True), TimerConfig(cron="* * * * *")],
    ids=["interval", "all missed", "cron"],
)
async def test_a_timer_keeps_the_promises_of_a_dispatcher(config: TimerConfig, autojump_clock: MockClock) -> None:
    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[Dispatcher, Feed]]:
        yield TimerDispatcher(config=config, context=fake_context("dispatcher/clock")), feed

    await check_dispatcher(make, patience=300)
