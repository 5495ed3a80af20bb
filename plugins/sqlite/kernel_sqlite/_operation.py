"""One thing to do with the file, on its way from a task to the thread and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar, final

import attrs
import trio
from typing_extensions import override

from kernel import wake

from ._letter import Letter
from ._store import Store

ResultT = TypeVar("ResultT")


@attrs.define(eq=False, repr=False)
class Operation(ABC, Generic[ResultT]):
    """Runs in the thread, together with others in one transaction; is told about in the event loop."""

    task: trio.lowlevel.Task | None = attrs.field(default=None, init=False)
    """Who waits for it; None if nobody does, or not any more."""
    is_taken_back: bool = attrs.field(default=False, init=False)
    """Whether it was withdrawn before it began: nothing was done, and nobody is told."""
    result: ResultT | None = attrs.field(default=None, init=False)
    error: BaseException | None = attrs.field(default=None, init=False)
    is_persistent: bool = attrs.field(default=False, kw_only=True)
    """Whether it is tried again until the file takes it."""

    @abstractmethod
    def run(self, store: Store) -> None:
        """Do it, and keep the result. In the thread."""

    def tell(self) -> None:
        """Say that it is done. In the event loop."""
        if self.task is not None:
            task, self.task = self.task, None
            wake(task)

    def outcome(self) -> ResultT:
        """Return the result, or raise what was raised."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]  # it has run, so this is what came of it


@final
@attrs.define(eq=False, repr=False)
class Sending(Operation[None]):
    """A message on its way into the file: what is done most often, so no function is made for each."""

    letter: Letter
    exchange: str
    mandatory: bool

    @override
    def run(self, store: Store) -> None:
        store.send(self.letter, exchange=self.exchange, mandatory=self.mandatory)


@final
@attrs.define(eq=False, repr=False)
class Action(Operation[ResultT]):
    """Anything else."""

    action: Callable[[Store], ResultT]
    heard: Callable[[Action[ResultT]], None] | None = None
    """Called in the event loop when it is done, whoever waits."""

    @override
    def run(self, store: Store) -> None:
        self.result = self.action(store)

    @override
    def tell(self) -> None:
        if self.heard is not None:
            self.heard(self)
        super().tell()
