"""Checkpoints that cost little: each notices cancellation, and now and then others run."""

from __future__ import annotations

import pytest
import trio

from kernel import Pace


async def test_others_run_at_one_step_in_32() -> None:
    pace, turns, steps = Pace(), 0, 0

    async def other() -> None:
        nonlocal turns
        while steps < 320:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await trio.lowlevel.checkpoint()
        before = turns
        for _ in range(320):
            await pace.step()
            steps += 1
        assert turns - before in {9, 10, 11}


async def test_every_step_notices_cancellation() -> None:
    pace = Pace()
    with trio.CancelScope() as scope:
        await pace.step()
        scope.cancel()
        with pytest.raises(trio.Cancelled):
            await pace.step()
        with pytest.raises(trio.Cancelled):
            await pace.turn()
