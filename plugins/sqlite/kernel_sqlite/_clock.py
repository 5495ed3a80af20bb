"""The times that the thread of the file goes by: those of the system, or in a test the virtual ones of trio."""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final, final

import attrs
import trio
from typing_extensions import override

_ORIGIN: Final = trio.lowlevel.RunVar[float]("the wall clock when trio's clock was 0")


class Clock(ABC):
    """What time it is, for any thread, and how the thread of the file waits."""

    __slots__ = ()

    @abstractmethod
    def wall(self) -> float:
        """Return the seconds since 1970: the only time that processes share. It may be set to another one."""

    @abstractmethod
    def monotonic(self) -> float:
        """Return seconds that go on evenly, whatever is done to the wall clock."""

    @abstractmethod
    def wait(self, lock: threading.Condition, seconds: float, *, poll: float = math.inf) -> None:
        """Wait until somebody notifies, or the time is over; it may also end earlier. The lock is held.

        Args:
            lock: Of the thread.
            seconds: Of `monotonic`.
            poll: Real seconds after which to look what other processes do.
        """


@final
@attrs.frozen(repr=False)
class SystemClock(Clock):
    """The clocks of the system."""

    @override
    def wall(self) -> float:
        return time.time()

    @override
    def monotonic(self) -> float:
        return time.monotonic()

    @override
    def wait(self, lock: threading.Condition, seconds: float, *, poll: float = math.inf) -> None:
        _wait(lock, min(seconds, poll))


@final
@attrs.define(eq=False, repr=False)
class VirtualClock(Clock):
    """Clocks that go with trio's, so that a delay of an hour passes in a test as fast as trio passes it.

    Other processes do not: their writes are looked for in real time.
    """

    _origin: float
    _clock: trio.abc.Clock = attrs.field(factory=trio.lowlevel.current_clock, init=False)
    _token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token, init=False)
    _alarm: float = attrs.field(default=math.inf, init=False)
    _nap: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _lock: threading.Condition | None = attrs.field(default=None, init=False)

    @override
    def wall(self) -> float:
        return self._origin + self._clock.current_time()

    @override
    def monotonic(self) -> float:
        return self._clock.current_time()

    @override
    def wait(self, lock: threading.Condition, seconds: float, *, poll: float = math.inf) -> None:
        until = self.monotonic() + seconds
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._set, until, lock)
        _wait(lock, poll)

    def _set(self, until: float, lock: threading.Condition) -> None:
        self._alarm, self._lock = until, lock
        self._nap.cancel()

    async def run(self) -> None:
        """Wake the thread when its time has come. Never returns unless cancelled."""
        while True:
            with trio.CancelScope() as self._nap:
                await trio.sleep_until(self._alarm)
                self._alarm = math.inf
                if self._lock is not None:
                    with self._lock:
                        self._lock.notify()


def _wait(lock: threading.Condition, seconds: float) -> None:
    lock.wait(None if seconds == math.inf else min(max(0.0, seconds), threading.TIMEOUT_MAX))


@asynccontextmanager
async def open_clock() -> AsyncGenerator[Clock]:
    """Yield the clock that fits trio's."""
    await trio.lowlevel.checkpoint()
    if _runs_in_real_time():
        yield SystemClock()
        return
    async with trio.open_nursery() as nursery:
        clock = VirtualClock(_origin())
        nursery.start_soon(clock.run)
        yield clock
        nursery.cancel_scope.cancel()


def _origin() -> float:
    """Return what all who share this trio run begin with."""
    try:
        return _ORIGIN.get()
    except LookupError:
        _ORIGIN.set(time.time() - trio.current_time())
        return _ORIGIN.get()


def _runs_in_real_time() -> bool:
    """Return whether a second of trio's clock takes a second."""
    clock = trio.lowlevel.current_clock()
    return abs(clock.deadline_to_sleep_time(trio.current_time() + 1.0) - 1.0) < 0.5
