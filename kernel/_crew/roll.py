"""A rolling restart: each process of a crew is replaced by a new one, while the others go on."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from .._core.crew import STATE
from .process import Process
from .slot import Slot, how_it_ended

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

READY_WITHIN: Final = 300.0
"""Seconds that a process which is to take the place of another has to become ready: more than its components have."""
STEADY_FOR: Final = 1.0
"""Seconds for which it must be ready then: what fails in its first moment does so in each of them."""


@final
@attrs.define(eq=False, repr=False, kw_only=True)
class Roll:
    """Replaces the processes of a crew, one after the other; ends with the first new one that is not fit for it."""

    slots: Sequence[Slot]
    start: Callable[[Slot], Process]
    settle: Callable[[Slot], bool]
    """Has what is fresh take its place, if it is ready."""
    end: Callable[[Process], Awaitable[None]]
    """Has a process stop in order, and waits for it."""
    is_stopping: Callable[[], bool]
    log: Callable[[], FilteringBoundLogger]

    async def run(self) -> bool:
        """Replace all; return whether that was done.

        Cancellation: Is a checkpoint.
        """
        await trio.lowlevel.checkpoint()
        for slot in self.slots:
            if self.is_stopping() or not await self._replace(slot):
                return False
        return True

    async def _replace(self, slot: Slot) -> bool:
        """Have a new process take a place; return whether it does. The old one stops when the new one is fit."""
        old = slot.process
        if old is None:
            slot.hasten()
            return True  # noqa: ASYNC910  see `run`
        try:
            fresh = slot.fresh = self.start(slot)
        except OSError as error:  # the system has no room for one more
            self._give_up(slot, str(error))
            return False  # noqa: ASYNC910  see `run`
        why_not = await self._wait_fit(fresh)
        if self.is_stopping():
            return False
        if why_not:
            slot.fresh = None
            self._give_up(slot, why_not)
            await self.end(fresh)
            return False
        self.settle(slot)
        await self.end(old)
        return not self.is_stopping()

    def _give_up(self, slot: Slot, how: str) -> None:
        text = "what was to take its place did not become ready: the old processes go on"
        self.log().error(text, component=f"process/{slot.number}", how=how)

    async def _wait_fit(self, fresh: Process) -> str:
        """Wait until a process has been ready for a moment; return why it was not, empty if it was."""
        with trio.move_on_after(READY_WITHIN):
            await fresh.settled.wait()
            before = await _told_by(fresh)
            with trio.move_on_after(STEADY_FOR):
                await fresh.gone.wait()
            after = await _told_by(fresh)
            if fresh.is_ready and after["ready"] and after["restarts"] == before["restarts"]:
                return ""
            return how_it_ended(fresh) if fresh.gone.is_set() else "did not stay ready"
        return f"is not ready after {READY_WITHIN:g} s"


async def _told_by(process: Process) -> Mapping[str, Any]:
    """Return what a process tells of itself, however long it takes; if it has gone, that it is not ready."""
    while not process.gone.is_set():
        if (text := await process.ask(STATE)) is not None:
            told: Mapping[str, Any] = json.loads(text)
            return told
        await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    return {"ready": False, "restarts": 0}
