"""Where tasks wait for news of one connection: what `trio.lowlevel.ParkingLot` does, at half of its price and size."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import trio
from trio.lowlevel import Abort, wait_task_rescheduled

from kernel import wake


@final
class Lot:
    """Tasks that wait.."""

    __slots__ = ("tasks",)

    def __init__(self) -> None:
        self.tasks: list[trio.lowlevel.Task] = []
        """Who waits."""

    async def park(self) -> None:
        """Wait until somebody calls `unpark_all`. Is a checkpoint."""
        task = trio.lowlevel.current_task()
        self.tasks.append(task)

        def leave(_: Callable[[], None]) -> Abort:
            self.tasks.remove(task)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(leave)

    def unpark_all(self) -> None:
        """Wake all who wait."""
        if self.tasks:
            tasks, self.tasks = self.tasks, []
            for task in tasks:
                wake(task)
