"""One thing to do with the file, on its way from a task to the thread and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, final

import attrs
import trio

from kernel import wake

from ._store import Store

ResultT = TypeVar("ResultT")


@final
@attrs.define(eq=False, repr=False)
class Operation(Generic[ResultT]):
    """Runs in the thread, together with others in one transaction; is told about in the event loop."""

    action: Callable[[Store], ResultT]
    task: trio.lowlevel.Task | None = None
    """Who waits for it; None if nobody does, or not any more."""
    heard: Callable[[Operation[ResultT]], None] | None = None
    """Called in the event loop when it is done, whoever waits."""
    is_persistent: bool = False
    """Whether it is tried again until the file takes it."""
    is_taken_back: bool = attrs.field(default=False, init=False)
    """Whether it was withdrawn before it began: nothing was done, and nobody is told."""
    result: ResultT | None = attrs.field(default=None, init=False)
    error: BaseException | None = attrs.field(default=None, init=False)

    def tell(self) -> None:
        """Say that it is done. In the event loop."""
        if self.heard is not None:
            self.heard(self)
        if self.task is not None:
            task, self.task = self.task, None
            wake(task)

    def outcome(self) -> ResultT:
        """Return the result, or raise what was raised."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]  # it has run, so this is what the action returned
