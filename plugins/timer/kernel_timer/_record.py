"""What the processes of a cluster tell each other of a timer, through its lease."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias, cast, final

import attrs
import trio

from kernel.abc import Lease
from kernel.errors import StartupError

from ._clock import WallClock

Phase: TypeAlias = Literal["done", "open", "back"]
"""What is with the last tick: it is done with; a process has it; or it was given back, and is for whoever takes it."""
_PHASES: Final = frozenset({"done", "open", "back"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@final
@attrs.frozen(kw_only=True)
class Record:
    """The last tick, and what is with it."""

    last: float
    """The moment that it stands for, in seconds since 1970; at first, when the timer was first seen."""
    phase: Phase = "done"
    by: str = ""
    """Who has it: made up anew by each life of a timer."""
    attempt: int = 1
    missed: int = 0
    era: int = 0
    """How often the clock was set back: a moment that comes again is another tick."""

    def written(self) -> str:
        """Return the text of it."""
        return json.dumps(attrs.asdict(self))

    @classmethod
    def read(cls, text: str) -> Record:
        """Return what was written.

        Raises:
            ValueError: if it is something else.
        """
        found: object = json.loads(text)
        values = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        if values.get("phase") not in _PHASES or not isinstance(values.get("last"), float | int):
            raise ValueError("it is no record of a timer")
        return cls(**values)


@final
@attrs.define(eq=False, repr=False)
class Book:
    """The record as this process has read or written it last, and the time of the place where it is."""

    name: str
    lease: Lease
    _wall: WallClock
    """What time it is, where the place has no clock."""
    _version: int = attrs.field(default=-1, init=False)
    _since: float = attrs.field(default=0.0, init=False)
    """When the version was seen first, in trio's time."""
    _ahead: float | None = attrs.field(default=None, init=False)
    """By how many seconds the place's clock is ahead of trio's."""

    async def read(self) -> Record | None:
        """Return the record; None if there is none yet.

        Raises:
            KernelError: if the place cannot be asked.
            StartupError: if something else is written there.

        Cancellation: Is a checkpoint.
        """
        state = await self.lease.read()
        self._ahead = None if state.now is None else state.now - trio.current_time()
        self._note(state.version)
        if not state.value:
            return None
        try:
            return Record.read(state.value)
        except (ValueError, TypeError) as error:
            raise StartupError(f'the lease "{self.name}" holds what no timer wrote: {state.value[:100]!r}') from error

    async def write(self, record: Record) -> bool:
        """Write over what was read last; returns whether nobody has written since.

        Raises:
            KernelError: if the place cannot be asked, or it is unknown whether it was written.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been written.
        """
        version = self._version
        is_written = await self.lease.write(record.written(), after=version)
        if is_written:
            self._note(version + 1)
        return is_written

    @property
    def age(self) -> float:
        """Seconds, of this process's own clock, in which nobody was seen to write."""
        return trio.current_time() - self._since

    def now(self) -> datetime:
        """Return the time of the place, or of this machine where the place has none."""
        if self._ahead is None:
            return self._wall()
        return _EPOCH + timedelta(seconds=trio.current_time() + self._ahead)

    def _note(self, version: int) -> None:
        if version != self._version:
            self._version, self._since = version, trio.current_time()
