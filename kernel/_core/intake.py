"""Where a dispatcher puts what it brings in, and the workers that it sees; public in `kernel.abc`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeVar, final

from typing_extensions import override

from .broker import Delivery
from .envelope import Outcome

if TYPE_CHECKING:
    import trio


ResourceT_co = TypeVar("ResourceT_co", covariant=True)


class Target(ABC):
    """One worker as its dispatcher sees it."""

    __slots__ = ()

    @property
    @abstractmethod
    def name(self) -> str:
        """The worker's name."""

    @property
    @abstractmethod
    def options(self) -> object:
        """What `Dispatcher.WorkerOptions` made of the worker's `options` table."""

    @property
    def worker(self) -> object:
        """The worker's class, function or object, for a dispatcher that reads marks on it; None if it is no worker."""
        return None

    @abstractmethod
    def hosted(self) -> object:
        """Return what `Dispatcher.host` yielded for an instance that is ready; instances take turns.

        Raises:
            UnavailableError: if no instance is ready.
        """

    async def wait_hosted(self) -> object:
        """Return what `hosted` does; if the worker is being replaced by a reload, once an instance is ready.

        Raises:
            UnavailableError: if no instance is ready, and none is about to be.

        Cancellation: Is a checkpoint.
        """
        import trio  # noqa: PLC0415  `kernel check` imports this module, and runs nothing

        await trio.lowlevel.checkpoint()
        return self.hosted()


class Drains(ABC):
    """What `Dispatcher.host` may yield: something that finishes what it works on before its worker is replaced."""

    __slots__ = ()

    @property
    @abstractmethod
    def is_busy(self) -> bool:
        """Whether it works on anything."""

    @abstractmethod
    async def drain(self) -> None:
        """Wait until it works on nothing. It is given nothing new meanwhile.

        Cancellation: Is a checkpoint. Cancelled when the drain timeout is over.
        """


class Work(ABC):
    """What occupies a slot without being a delivery. Compared by identity."""

    __slots__ = ()

    @property
    @abstractmethod
    def label(self) -> str:
        """What to call it when it must be named as a culprit; asked for only then."""

    @property
    @abstractmethod
    def worker(self) -> str:
        """Name of the worker that does it; may be empty."""

    @property
    @abstractmethod
    def task(self) -> trio.lowlevel.Task:
        """The task that does it, to say where it hangs."""

    @property
    def seconds(self) -> float:
        """For how long it has been going on, 0 if nobody knows. May be asked for from any thread."""
        return 0.0

    @abstractmethod
    def cut(self) -> None:
        """Make an end of it soon: the drain deadline is over. May be called again."""


CURRENT_WORK: Final[ContextVar[Work | None]] = ContextVar("kernel.current_work", default=None)
"""Set by the intake from `enter` to `leave`, in the context of the task that does both."""


def current_work() -> Work | None:
    """Return the request that this task, or the one that it was started from, works for; None outside of requests.

    A client waits for a request, as nobody does for a worker's own loop: whoever may wait long can ask for it.
    """
    return CURRENT_WORK.get()


class _ScopedWork(Work):
    """What runs in the body of `Intake.slot`."""

    __slots__ = ("_began", "_label", "_now", "_task", "_worker", "scope")

    def __init__(self, label: str, worker: str) -> None:
        import trio  # noqa: PLC0415  `kernel check` imports this module, and runs nothing

        self._label = label
        self._worker = worker
        self._task = trio.lowlevel.current_task()
        self._now = trio.lowlevel.current_clock().current_time
        self._began = self._now()
        self.scope = trio.CancelScope()

    @property
    @override
    def label(self) -> str:
        return self._label

    @property
    @override
    def worker(self) -> str:
        return self._worker

    @property
    @override
    def task(self) -> trio.lowlevel.Task:
        return self._task

    @property
    @override
    def seconds(self) -> float:
        return self._now() - self._began

    @override
    def cut(self) -> None:
        self.scope.cancel()


class Intake(ABC):
    """Where a dispatcher puts what it brings in. At most `concurrency` are in flight at a time."""

    __slots__ = ()

    @property
    @abstractmethod
    def concurrency(self) -> int:
        """How many may be in flight. 1 or more."""

    @property
    def prefetch(self) -> int:
        """How many a source should send ahead: no more than may be in flight, and than can start before long.

        What was sent ahead and only waits for the `rate` is nobody else's meanwhile, and its source may take it for
        lost. 1 or more.
        """
        return self.concurrency

    @property
    def is_paused(self) -> bool:
        """Whether no slot is given out because somebody has paused the dispatcher, and not because all are taken."""
        return False

    @property
    @abstractmethod
    def targets(self) -> Sequence[Target]:
        """The workers of this dispatcher."""

    @abstractmethod
    async def submit(self, delivery: Delivery, *, revocable_as: str = "") -> None:
        """Wait for a free slot, then handle the delivery in a task of its own and settle it.

        Args:
            delivery: What to handle.
            revocable_as: The name by which `revoke` finds it until it is settled; empty if nobody will revoke it.

        Cancellation: Is a checkpoint. If cancelled while waiting, the delivery is settled with `Return`.
        """

    def submit_nowait(self, delivery: Delivery, *, revocable_as: str = "") -> None:
        """Handle the delivery as `submit` does, if that takes no waiting.

        For a source whose task both reads and submits: another one that submits costs a turn of the loop. What waits in
        `submit` is not waited for, so whoever uses both keeps the order.

        Raises:
            trio.WouldBlock: if it takes waiting, and whenever it is time to let others run; `submit` does both. The
                delivery is still the caller's.
        """
        del delivery, revocable_as
        import trio  # noqa: PLC0415  `kernel check` imports this module, and runs nothing

        raise trio.WouldBlock

    @abstractmethod
    def revoke(self, name: str) -> bool:
        """Cancel the handlers of what was submitted under a name, since nobody waits for what they do.

        Each such delivery is acknowledged without a reply as soon as its handler has ended, however it ends; a
        handler that has not begun is not called. In a batch, a handler that was called goes on. The event
        `DeliveryRevoked` tells of it.

        Args:
            name: What `submit` was given as `revocable_as`.

        Returns:
            Whether there was such a delivery.
        """

    @abstractmethod
    async def handle(self, delivery: Delivery) -> Outcome:
        """Wait for a free slot, then handle the delivery, settle it and return its outcome.

        For sources that go on from the outcome, such as a timer or a request on a socket.

        Cancellation: Is a checkpoint. If cancelled while waiting for the slot, the delivery is settled with
            `Return`; later, it stays in flight and is settled without the caller.
        """

    @abstractmethod
    def enter_nowait(self, work: Work, *, counts: bool = True) -> None:
        """Take a slot for work that the pipeline does not run, such as an ASGI request.

        The work is in flight until `leave`: waited for when draining, and cut at the drain deadline.

        Args:
            work: What occupies the slot. If the drain deadline is over already, it is cut at once.
            counts: Whether it takes one of the `concurrency` slots. What does not is bounded by the dispatcher itself,
                such as websockets, which are open for long and seldom do anything.

        Raises:
            trio.WouldBlock: if no slot is free.
        """

    @abstractmethod
    async def enter(self, work: Work) -> None:
        """Wait for a free slot, then take it as `enter_nowait` does.

        Cancellation: Is a checkpoint. If cancelled, the work is not in flight.
        """

    @abstractmethod
    def leave(self, work: Work) -> None:
        """Give the slot of the work back."""

    def give_up_slot(self, work: Work) -> bool:
        """Let others have the slot of work that goes on, since it does nothing but wait for the outside.

        It stays in flight until `leave`. How many such there may be is for the dispatcher to say.

        Returns:
            Whether it had one.
        """
        del work
        return False

    @final
    @asynccontextmanager
    async def slot(self, label: str = "", *, worker: str = "") -> AsyncGenerator[None]:
        """Occupy a slot; a form of `enter` and `leave` that costs ten times as much.

        What runs inside is cancelled when the work is cut (the body then ends early, as with `trio.move_on_after`).

        Args:
            label: What to call it when it must be named as a culprit.
            worker: Name of the worker that does the work.

        Cancellation: Is a checkpoint on entry.
        """
        work = _ScopedWork(label, worker)
        await self.enter(work)
        try:
            with work.scope:
                yield
        finally:
            self.leave(work)
