"""What the pipeline works with: where a delivery goes, what is to be done with it, and how that ended."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, final

import attrs
import trio
from typing_extensions import override

from .._core.broker import Delivery
from .._core.envelope import Ack, Envelope, Outcome
from .._core.spec import Filter, HandlerSpec
from .pool import Instance, Pool

_FAR: Final = 4.0
"""Seconds; a deadline that is farther away is the next on the grid."""
_GRID: Final = 1 / 16
"""Seconds between two of them."""


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
        init=False, default=attrs.Factory(lambda self: Verdict(Ack(), self.pool), takes_self=True)
    )
    """What most calls of it come to; made once, since to make it costs as much as to call many a handler."""


@final
@attrs.define(eq=False, repr=False)
class Work:
    """An attempt that may be started."""

    delivery: Delivery
    route: Route
    payload: object


Raised: TypeAlias = Exception | SystemExit | None
"""What a call raised besides being cancelled; None for nothing."""
Judge: TypeAlias = Callable[[Instance, Work, Raised], Verdict]
"""Says what becomes of a call that was cut."""


@final
@attrs.define(eq=False, repr=False)
class Leash:
    """The cancel scope in which a task makes one attempt after the other: one for each costs as much as many a handler.

    Its deadline is that of the last call, or a little later. Once cancelled it is used up: whoever has entered it
    leaves it, and decides about the call that was cut, if one was.
    """

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    call: tuple[Judge, Instance, Work] | None = attrs.field(default=None, init=False)
    """The call that is under way, and who judges it when it is cut."""
    began: float = attrs.field(default=0.0, init=False)
    """When the attempt began, in `trio.current_time()`."""
    deadline: float = attrs.field(default=math.inf, init=False)
    """That of the scope, which takes longer to ask."""

    def hold(self, deadline: float) -> None:
        """Set the deadline of a call.

        One that is 4 s away or farther comes up to 1/16 s late, so that calls which begin soon after one another have
        the same one: to set it costs as much as many a handler.

        Args:
            deadline: In `trio.current_time()`; may be infinite.
        """
        if _FAR <= deadline - self.began < math.inf:
            deadline += -deadline % _GRID
        if self.deadline != deadline:
            self.scope.deadline = self.deadline = deadline

    def loosen(self) -> None:
        """Forget the deadline of the last call, before something else is done in the scope."""
        if self.deadline != math.inf:  # to set it costs much
            self.scope.deadline = self.deadline = math.inf

    def judged(self, raised: Raised) -> Verdict | None:
        """Return what becomes of the call that was cut with the scope; None if there was none."""
        if self.call is None:
            return None
        judge, instance, work = self.call
        return judge(instance, work, raised)


class Collecting(ABC):
    """Calls handlers with many payloads at once."""

    __slots__ = ()

    @abstractmethod
    async def join(self, work: Work) -> Verdict:
        """Wait until the handler was called with this attempt among others; return what becomes of this one.

        Cancellation: Is a checkpoint. Those who wait and the call are cancelled together.
        """

    @abstractmethod
    def close(self) -> None:
        """Say that nothing new comes: what is collected is handled at once."""


class Attempting(ABC):
    """Runs the attempts at the deliveries of one dispatcher."""

    __slots__ = ()

    @abstractmethod
    def attempt(self, delivery: Delivery, leash: Leash | None = None) -> Awaitable[Verdict]:
        """Run one attempt; what goes wrong in it becomes part of the verdict.

        Args:
            delivery: What is to be handled.
            leash: A scope that this task is in, and that may serve for the call.

        Cancellation: Is a checkpoint if a handler is called and waits. If cancelled, the handler was; if its leash
            was, `Leash.judged` says what becomes of it.
        """

    @abstractmethod
    def close(self) -> None:
        """Say that nothing new comes: what waits for a paused worker goes back, and batches wait for no more."""


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

    @override
    async def settle(self, outcome: Outcome) -> None:
        await self.original.settle(outcome)
