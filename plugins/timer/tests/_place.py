"""A place of leases in memory, whose clock is set and whose line is cut as a test likes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio
from typing_extensions import override

from kernel.abc import Lease, LeaseState, Leasing, check_lease_name
from kernel.errors import UnavailableError, UnknownOutcomeError


@attrs.define(eq=False)
class Place(Leasing):
    """What all processes of a test share."""

    has_clock: bool = True
    ahead: float = 0.0
    """Seconds by which its clock is ahead of trio's."""
    rows: dict[str, tuple[int, str]] = attrs.field(factory=dict)
    is_away: bool = False
    loses_answers: int = 0
    """How many of the next writes are made without anybody hearing of it."""

    @override
    def lease(self, name: str) -> Lease:
        return _Row(self, check_lease_name(name))

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Leasing]:
        await trio.lowlevel.checkpoint()
        yield self


@attrs.define(eq=False)
class _Row(Lease):
    place: Place
    name: str

    @override
    async def read(self) -> LeaseState:
        await trio.sleep(0.001)
        if self.place.is_away:
            raise UnavailableError("the place is away")
        version, value = self.place.rows.get(self.name, (0, ""))
        now = trio.current_time() + self.place.ahead if self.place.has_clock else None
        return LeaseState(version=version, value=value, now=now)

    @override
    async def write(self, value: str, *, after: int) -> bool:
        await trio.sleep(0.001)
        if self.place.is_away:
            raise UnavailableError("the place is away")
        version, _ = self.place.rows.get(self.name, (0, ""))
        if version != after:
            return False
        self.place.rows[self.name] = (version + 1, value)
        if self.place.loses_answers:
            self.place.loses_answers -= 1
            raise UnknownOutcomeError("the answer was lost")
        return True
