"""The wall clock that cron needs, in real and in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias, final

import attrs
import trio

WallClock: TypeAlias = Callable[[], datetime]
"""Returns the time of day, aware of its zone. Must be called inside trio."""


def _in_utc(moment: datetime) -> datetime:
    """Return the same moment in UTC; to add to a time in another zone moves its hands, not the time."""
    return moment.astimezone(UTC)


@final
@attrs.frozen
class VirtualClock:
    """A wall clock that goes on with trio's clock, and so never jumps. Make it inside trio."""

    origin: datetime = attrs.field(factory=lambda: datetime.now(UTC), converter=_in_utc)
    """What it shows first, aware of its zone; by default the real time."""
    began: float = attrs.field(factory=trio.current_time, init=False)

    def __call__(self) -> datetime:
        return self.origin + timedelta(seconds=trio.current_time() - self.began)


def wall_clock() -> WallClock:
    """Return a wall clock that fits trio's clock.

    While trio's clock is the real one, this is the clock of the system, with every jump that it makes. In virtual
    time it is a `VirtualClock`, so that a month passes in a test as fast as trio passes it.
    """
    return system_clock if runs_in_real_time() else VirtualClock()


def system_clock() -> datetime:
    """Return the time of day that the system has."""
    return datetime.now(UTC)


def runs_in_real_time() -> bool:
    """Return whether a second of trio's clock takes a second."""
    clock = trio.lowlevel.current_clock()
    return abs(clock.deadline_to_sleep_time(trio.current_time() + 1.0) - 1.0) < 0.5
