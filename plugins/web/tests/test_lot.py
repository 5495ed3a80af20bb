"""Where tasks wait for news of one connection."""

from __future__ import annotations

import trio
import trio.testing
from kernel_web.wire.lot import Lot


async def test_all_who_wait_are_woken_once() -> None:
    lot, woken = Lot(), list[int]()

    async def wait(name: int) -> None:
        await lot.park()
        woken.append(name)

    async with trio.open_nursery() as nursery:
        for name in range(3):
            nursery.start_soon(wait, name)
        await trio.testing.wait_all_tasks_blocked()
        lot.unpark_all()
        lot.unpark_all()

    assert sorted(woken) == [0, 1, 2]
    assert not lot.tasks


async def test_who_is_cancelled_waits_no_more_and_the_others_do() -> None:
    lot, woken = Lot(), list[int]()

    async def wait() -> None:
        await lot.park()
        woken.append(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        with trio.CancelScope() as scope:
            scope.cancel()
            await lot.park()
        await trio.testing.wait_all_tasks_blocked()
        waiting = len(lot.tasks)
        lot.unpark_all()

    assert scope.cancelled_caught
    assert (waiting, woken) == (1, [1])
