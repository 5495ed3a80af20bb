"""What the pipeline works with: where a delivery goes, what is to be done with it, and how that ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import attrs

from ._broker import Delivery
from ._envelope import Ack, Outcome
from ._pool import Pool
from ._spec import Filter, HandlerSpec


@final
@attrs.frozen
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
@attrs.frozen
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
@attrs.frozen
class Work:
    """An attempt that may be started."""

    delivery: Delivery
    route: Route
    payload: object


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
    async def attempt(self, delivery: Delivery) -> Verdict:
        """Run one attempt; what goes wrong in it becomes part of the verdict.

        Cancellation: Is a checkpoint if a handler is called and waits. If cancelled, the handler was.
        """

    @abstractmethod
    def close(self) -> None:
        """Say that nothing new comes: what waits for a paused worker goes back, and batches wait for no more."""
