"""What the pipeline works with, as values: where a delivery goes, an attempt at it, and how that ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import TracebackType
from typing import final

import attrs
from typing_extensions import override

from .._core.broker import Delivery
from .._core.envelope import Ack, Envelope, Outcome
from .._core.spans import NOTHING
from .._core.spec import Filter, HandlerSpec
from .pool import Pool


@final
@attrs.frozen(repr=False)
class Verdict:
    """How one attempt ended."""

    outcome: Outcome
    pool: Pool | None = None
    """The worker that decided."""
    error: BaseException | None = None
    payload: object = None
    """What the handler was given, if it came that far."""
    result: object = None
    """What the handler returned, if there is an answer to be made of it."""
    failed: bool | None = None
    """Whether its worker failed; None if that says nothing of the worker, as when it was not called or was cut."""

    is_not_now: bool = False
    """Whether its handler gave it back, for another time."""
    taken_by: str = ""
    """`worker/name` of the failure worker that took what its worker failed at; of several, all."""

    @property
    def worker(self) -> str:
        """`worker/name`; empty if none was found, or if several decided together."""
        return "" if self.pool is None else self.pool.spec.id


@final
@attrs.frozen(repr=False)
class Route:
    """Where a subject leads: a handler of a worker."""

    pool: Pool
    handler: HandlerSpec
    filter: Filter | None = None
    """Of the worker; None for its failures, which pass none."""
    acked: Verdict = attrs.field(
        init=False, default=attrs.Factory(lambda self: Verdict(Ack(), self.pool, failed=False), takes_self=True)
    )
    """What most calls of it come to; made once, since to make it costs as much as to call many a handler."""
    edition: int = attrs.field(init=False, default=attrs.Factory(lambda self: self.pool.edition, takes_self=True))
    """Of the worker, when it was made."""

    @property
    def is_current(self) -> bool:
        """Whether it still leads to the worker that it was made for."""
        return self.edition == self.pool.edition


@final
@attrs.define(eq=False, repr=False)
class Work:
    """An attempt that may be started."""

    delivery: Delivery
    route: Route
    payload: object
    along: Mapping[str, object] = NOTHING
    """What is sent from the handler takes along, as `Handled` has it."""
    stood: TracebackType | None = None
    """Where the handler was when it was cut."""

    @property
    def worker(self) -> str:
        """`worker/name`."""
        return self.route.pool.spec.id


@attrs.frozen(eq=False, repr=False)
class Relay(Delivery):
    """Passes on what another delivery says, and settles that one."""

    original: Delivery

    @property
    @override
    def envelope(self) -> Envelope:
        return self.original.envelope

    @property
    @override
    def attempt(self) -> int:
        return self.original.attempt

    @property
    @override
    def redelivered(self) -> bool:
        return self.original.redelivered

    @property
    @override
    def sent(self) -> float | None:
        return self.original.sent

    @override
    async def settle(self, outcome: Outcome) -> None:
        await self.original.settle(outcome)


@final
@attrs.frozen(eq=False, repr=False)
class Unanswered(Relay):
    """A delivery as its failure worker sees it: the same, but nobody waits for an answer, and time is not up."""

    @property
    @override
    def envelope(self) -> Envelope:
        return attrs.evolve(self.original.envelope, reply_to="", deadline=math.inf)
