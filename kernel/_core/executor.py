"""The contract of a resource that calls plain functions outside of the event loop; public through `kernel.abc`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import ClassVar, Final, final

import attrs

UNTIMED: Final[ContextVar[Callable[[], AbstractContextManager[None]]]] = ContextVar(
    "kernel.untimed", default=nullcontext
)
"""Set by the pipeline around a call that an executor makes."""


def untimed() -> AbstractContextManager[None]:
    """Return what keeps the `timeout` of a handler from running while inside: it has not begun.

    For an executor, in the task of its `call`. The deadline of the delivery goes on.
    """
    return UNTIMED.get()()


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class PlainWorker:
    """A worker whose handlers an executor calls."""

    id: str
    """`worker/name`."""
    use: Callable[..., object]
    """Its class or function, as the manifest names it: another process can import it."""
    is_function: bool
    arguments: Mapping[str, object]
    """What its constructor is given, by name; for a function, what each call is given besides."""
    instance: object = None
    """The object of this life, on which methods are called; None for an executor that `crosses_processes`."""


class Executor(ABC):
    """Calls the handlers of workers that name it with `runs_in`: plain ones, unless it `calls_async`. Many workers may share one."""

    __slots__ = ()

    crosses_processes: ClassVar[bool] = False
    """Whether calls leave the process: then workers get no drivers, and whatever goes there and back is serialized."""
    calls_async: ClassVar[bool] = False
    """Whether handlers are async functions for another event loop, rather than plain ones."""

    @classmethod
    def refusal(cls, worker: PlainWorker) -> str:
        """Return what keeps a worker from being called, such as a value that cannot be serialized; empty if nothing.

        Asked by `kernel check`. Never raises, and does nothing else.

        Args:
            worker: As `call` would be given it, without an object.
        """
        return ""

    @abstractmethod
    async def call(
        self, worker: PlainWorker, method: str, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> object:
        """Wait for a place, call a handler, and return what it returns.

        The worker's `timeout` runs from here, but while the executor is in `untimed()`.

        Args:
            worker: Whose handler it is.
            method: Name of the method; empty for a function.
            args: By position.
            kwargs: By name.

        Returns:
            What the handler returned, or `Return()` if the call was not begun, since the worker `drains`.

        Raises:
            Exception: what the handler raised.
            TransientError: if it is unknown whether the call was made, such as when its process died.

        Cancellation: Is a checkpoint. If cancelled, the call was not made, or is ended, or is left to itself in its
            thread, which keeps its place until it ends.
        """

    def drain(self, worker: str) -> None:  # noqa: B027  most executors make all calls that wait
        """Say that nothing new comes for a worker, `worker/name`: what waits may be given back, or be done.

        Never raises, never blocks.
        """

    def resume(self, worker: str) -> None:  # noqa: B027  as above
        """Say that calls of a worker come, or come again."""
