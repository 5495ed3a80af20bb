"""A place in a crew: a number, and the process that has it at present."""

from __future__ import annotations

import random
import signal
from typing import final

import attrs
import trio

from .._core.policies import RestartHistory, RestartPolicy
from .process import Process

CLEAN, FAILED, INVALID, CUT = 0, 1, 2, 3
"""Exit statuses of a service."""


@final
@attrs.define(eq=False, repr=False)
class Slot:
    """One number."""

    number: int
    history: RestartHistory
    process: Process | None = attrs.field(default=None, init=False)
    """None while it waits to be started again, and once all is done that it is there for."""
    fresh: Process | None = attrs.field(default=None, init=False)
    """What is to take its place, and is not ready yet."""
    generation: int = attrs.field(default=0, init=False)
    """How often the service had changed when its process was started."""
    restarts: int = attrs.field(default=0, init=False)
    how: str = attrs.field(default="", init=False)
    """How its last process has ended; empty if none has."""
    _waiting: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    @classmethod
    def of(cls, number: int, policy: RestartPolicy) -> Slot:
        """Return an empty place."""
        return cls(number, RestartHistory(policy, random.random))

    def settle(self) -> bool:
        """Have what is fresh take the place, if it is ready; return whether it has."""
        fresh, self.fresh = self.fresh, None
        if fresh is None or not fresh.is_ready:
            return False
        self.process = fresh
        return True

    async def wait(self, seconds: float) -> None:
        """Wait for so long, or until `hasten`."""
        with trio.CancelScope() as self._waiting:
            await trio.sleep(seconds)

    def hasten(self) -> None:
        """Have it wait no longer."""
        self._waiting.cancel()


def how_it_ended(process: Process) -> str:
    """Return how a process has ended, in words."""
    if process.status < 0:
        return f"was killed by {signal_name(-process.status)}"
    return f"ended with status {process.status}"


def signal_name(number: int) -> str:
    """Return what a signal is called."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def status_of(process: Process) -> int:
    """Return the exit status that follows from the end of a process which was to end."""
    if process.ended is not None:
        return int(process.ended["status"])
    if process.status in {-signal.SIGTERM, -signal.SIGINT}:  # while it imported: nothing had begun
        return CLEAN
    if process.status == -signal.SIGKILL:
        return CUT
    return process.status if process.status in {CLEAN, INVALID, CUT} else FAILED


def gravest(statuses: list[int]) -> int:
    """Return the one status that stands for several."""
    found = next((status for status in (FAILED, INVALID, CUT) if status in statuses), None)
    return max(statuses, default=CLEAN) if found is None else found
