"""Whether the event loop goes on: seen from inside of trio, told to any thread."""

from __future__ import annotations

import threading
import time
from typing import Final

import attrs
import trio

STALL: Final = 0.5
"""Seconds that the event loop may be busy with one turn before it counts as blocked."""


@attrs.define(eq=False, repr=False)
class Pulse(trio.abc.Instrument):
    """Notes when the event loop of one run begins a turn, and when it has done all that there is to do."""

    busy_since: float | None = attrs.field(default=None, init=False)
    """In `time.monotonic()`; None while the loop has nothing to do."""
    thread: int = attrs.field(default=0, init=False)
    """The ident of the thread that the loop runs in."""

    def begin(self) -> None:
        """Be the pulse of this run of trio, of which it is an instrument."""
        self.thread = threading.get_ident()
        _pulse.set(self)

    def busy(self) -> float:
        """Return the seconds that the loop has been busy with one turn; 0 if it waits. May be called from any thread."""
        since = self.busy_since
        return 0.0 if since is None else max(0.0, time.monotonic() - since)

    def before_io_wait(self, timeout: float) -> None:
        """Note that the loop has nothing to do. Called by trio."""
        del timeout
        self.busy_since = None

    def after_io_wait(self, timeout: float) -> None:
        """Note that the loop runs tasks. Called by trio."""
        del timeout
        self.busy_since = time.monotonic()

    def after_run(self) -> None:
        """Note that there is no loop any more. Called by trio."""
        self.busy_since = None


_pulse: Final[trio.lowlevel.RunVar[Pulse]] = trio.lowlevel.RunVar("kernel_pulse")


def current_pulse() -> Pulse:
    """Return the pulse of this run of trio; the first one who asks has one put in."""
    try:
        return _pulse.get()
    except LookupError:
        pulse = Pulse()
        trio.lowlevel.add_instrument(pulse)
        pulse.begin()
        return pulse
