"""Waking a task that has only to go on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Final, TypeVar, final

import trio
from outcome import Outcome
from typing_extensions import override

_ResultT = TypeVar("_ResultT")


@final
class _Nothing(Outcome[None]):
    """None, as often as it is wanted; an outcome of trio's own is good for one time."""

    __slots__ = ()

    @override
    def unwrap(self) -> None:
        return None

    @override
    def send(self, gen: Generator[_ResultT, None, object]) -> _ResultT:
        return gen.send(None)

    @override
    async def asend(self, agen: AsyncGenerator[_ResultT, None]) -> _ResultT:
        return await agen.asend(None)


_NOTHING: Final = _Nothing()


def wake(task: trio.lowlevel.Task) -> None:
    """Reschedule a task that waits in `trio.lowlevel.wait_task_rescheduled`, which returns None there.

    As `trio.lowlevel.reschedule(task)`, which makes an outcome for each task: on the way of every message that takes
    longer than all else that waking does.

    Args:
        task: Each wait is to be ended once, by this or by its abort function.
    """
    trio.lowlevel.reschedule(task, _NOTHING)
