"""A running service, as a test sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, TypeVar, cast, final

import attrs
import trio

from .._core.events import DeliverySettled, Event, EventHub
from .._core.spec import Plan
from .._core.words import MAX_TEXT, cut, listed
from .._supervise.kernel import Kernel, Result
from .._supervise.run import serve
from ._context import fake_context
from ._patience import Patience, bounded

EventT = TypeVar("EventT", bound=Event)

_LAST: Final = 30
"""Events that are listed when a test has waited in vain."""


class _Publisher(Protocol):
    async def publish(self, subject: str, payload: object, **options: object) -> object: ...


class _Caller(Protocol):
    async def call(self, subject: str, payload: object, **options: object) -> object: ...


@final
@attrs.define(eq=False, repr=False)
class RunningService:
    """A running service in a test."""

    kernel: Kernel
    plan: Plan
    patience: Patience = attrs.field(factory=Patience)
    """How long each wait may take."""
    events: list[Event] = attrs.field(factory=list[Event], init=False)
    """Everything that happened, in order."""
    settled: list[DeliverySettled] = attrs.field(factory=list[DeliverySettled], init=False)
    """Every delivery that came to its end, in order."""
    result: Result | None = attrs.field(default=None, init=False)
    """How it ended, once it has."""
    stopped_by_test: bool = attrs.field(default=False, init=False)
    """Whether the test called `stop`, and so looks at the result itself."""
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _ended: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __repr__(self) -> str:
        return f"<RunningService {self.plan.name}: {len(self.events)} events>"

    def resource(self, component: str) -> Any:  # noqa: ANN401  what a driver offers is the test's to know
        """Return what a component offers, for example `resource("driver/queue")`.

        Raises:
            UnavailableError: if it is not ready.
        """
        return self.kernel.resource(component)

    async def publish(self, driver: str, subject: str, payload: object, **options: object) -> None:
        """Publish through the publisher of that name.

        Raises:
            AssertionError: if it takes longer than `patience`.

        Cancellation: Is a checkpoint.
        """
        async with self._bounded(f"publishing {subject}"):
            await cast("_Publisher", self.resource(f"driver/{driver}")).publish(subject, payload, **options)

    async def call(self, driver: str, subject: str, payload: object, **options: object) -> Any:  # noqa: ANN401  as above
        """Call through the RPC client of that name and return the answer.

        Raises:
            AssertionError: if it takes longer than `patience`.

        Cancellation: Is a checkpoint.
        """
        answer: object = None
        async with self._bounded(f"calling {subject}"):
            answer = await cast("_Caller", self.resource(f"driver/{driver}")).call(subject, payload, **options)
        return answer  # noqa: RET504  what bounds it may, for all that a type says, swallow what it raises

    async def wait_settled(
        self, count: int = 1, *, matching: Callable[[DeliverySettled], bool] | None = None
    ) -> Sequence[DeliverySettled]:
        """Wait until so many deliveries have been settled since the service was opened; returns them.

        Args:
            count: How many, at least.
            matching: Which of them count; all if None.

        Raises:
            AssertionError: listing what did happen, if the service ends before, or it takes longer than `patience`.

        Cancellation: Is a checkpoint.
        """
        found: list[DeliverySettled] = []

        def enough() -> bool:
            found[:] = [event for event in self.settled if matching is None or matching(event)]
            return len(found) >= count

        await self._wait(f"{count} settled deliveries{'' if matching is None else ' that match'}", enough)
        return found

    async def wait_event(self, kind: type[EventT], matching: Callable[[EventT], bool] | None = None) -> EventT:
        """Wait for an event of a type, past or future; returns the first that matches.

        Raises:
            AssertionError: listing what did happen, if the service ends before, or it takes longer than `patience`.

        Cancellation: Is a checkpoint.
        """
        found: list[EventT] = []

        def seen() -> bool:
            found[:] = [
                event for event in self.events if isinstance(event, kind) and (matching is None or matching(event))
            ]
            return bool(found)

        await self._wait(f"the event {kind.__name__}{'' if matching is None else ' that matches'}", seen)
        return found[0]

    async def stop(self) -> Result:
        """Stop the service in order and return how it ended; what failed is in the result and not raised.

        Raises:
            AssertionError: if it takes longer than `patience`.

        Cancellation: Is a checkpoint.
        """
        self.stopped_by_test = True
        self.kernel.request_stop("the test is over")
        async with self._bounded("the end of the service"):
            await self._ended.wait()
        if self.result is None:
            raise RuntimeError("the service ended without a result")
        return self.result

    async def wait_ready(self) -> None:
        """Wait until every component has been ready.

        Raises:
            StartupError: if the service is stopped before.
            AssertionError: if it takes longer than `patience`.

        Cancellation: Is a checkpoint.
        """
        async with self._bounded("a service that is ready"):
            await self.kernel.wait_ready()

    def happened(self) -> str:
        """Return what became of the service so far, in lines: the state of each component, and the last events."""
        states = listed(f"{name} {state.value}" for name, state in self.kernel.states.items())
        last = [f"  {cut(repr(event), MAX_TEXT)}" for event in self.events[-_LAST:]]
        return "\n".join([f"states: {states}", f"{len(self.events)} events, the last {len(last)} of them:", *last])

    def _bounded(self, what: str) -> AbstractAsyncContextManager[None]:
        return bounded(self.patience, what, self.happened)

    async def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        await trio.lowlevel.checkpoint()
        async with self._bounded(what):
            while not condition():
                if self._ended.is_set():
                    failure = next(iter(self.result.errors), None) if self.result is not None else None
                    ended = f"the service has ended, and what the test waits for never happened: {what}"
                    raise AssertionError(f"{ended}\n{self.happened()}") from failure
                await self._changed.park()

    def hear(self, event: Event) -> None:
        """Take note of an event."""
        self.events.append(event)
        if isinstance(event, DeliverySettled):
            self.settled.append(event)
        self._changed.unpark_all()

    async def serve(self, hub: EventHub, task_status: trio.TaskStatus[Kernel]) -> None:
        """Run the service to its end. `open_kernel` calls it."""
        try:
            self.result = await serve(
                self.plan, log=fake_context("kernel/kernel").log, hub=hub, task_status=task_status
            )
        finally:
            self._ended.set()
            self._changed.unpark_all()
