"""The stop: its order, its bounds, and what may come between."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from kernel._lifecycle import State
from kernel._supervisor import Supervisor

from ._stage import NEVER, Script, Stage, fails, policy


async def test_a_stop_may_begin_while_a_dependent_is_being_recalled(stage: Stage, autojump_clock: MockClock) -> None:
    a = stage.add("a", fails(), Script())
    stage.add("b", Script(closing=1.0), uses=[a])

    async with stage.running():
        await trio.sleep(1.5)

    assert stage.log == "+a +b -a -b"
    assert trio.current_time() == 2.0
