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
_STOPPING: Final = "the service stops"
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

    async def run(self) -> str:
        """Replace all; return why that was not done, empty if it was.

        Cancellation: Is a checkpoint.
        """
        await trio.lowlevel.checkpoint()
        for slot in self.slots:
            if why_not := _STOPPING if self.is_stopping() else await self._replace(slot):
                return why_not
        return ""

    async def _replace(self, slot: Slot) -> str:
        """Have a new process take a place; return why it does not. The old one stops when the new one is fit."""
        old = slot.process
        if old is None:
            slot.hasten()
            return ""  # noqa: ASYNC910  see `run`
        try:
            fresh = slot.fresh = self.start(slot)
        except OSError as error:  # the system has no room for one more
            return self._given_up(slot, str(error))  # noqa: ASYNC910  see `run`
        why_not = await self._wait_fit(fresh)
        if self.is_stopping():
            return _STOPPING
        if why_not:
            slot.fresh = None
            told = self._given_up(slot, why_not)
            await self.end(fresh)
            return told
        self.settle(slot)
        await self.end(old)
        return _STOPPING if self.is_stopping() else ""

    def _given_up(self, slot: Slot, how: str) -> str:
        """Tell that a process was not replaced, and why; return it in words."""
        text = "what was to take its place did not become ready: the old processes go on"
        self.log().error(text, component=f"process/{slot.number}", how=how)
        return (
            f"what was to take the place of process {slot.number} {how}; the old processes go on, and the log says more"
        )

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
