"""Who restarts when something that others depend on does, and in which order."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from kernel._lifecycle import State
from kernel._restart import Ending, RestartPolicy
from kernel.errors import DependencyError, StartupError

from ._stage import NEVER, ON_FAILURE, Script, Stage, fails, policy


async def test_dependents_stop_in_reverse_and_start_in_order_around_a_restart(
    stage: Stage, autojump_clock: MockClock
) -> None:
    a = stage.add("a", fails(), Script())
    b = stage.add("b", uses=[a])
    stage.add("c", uses=[b])

    async with stage.running():
        await trio.sleep(10)

    assert stage.log == "+a +b +c -a -c -b +a +b +c -c -b -a"
