"""The file in the hands of one task, for a transaction that it writes itself."""

from __future__ import annotations

from typing import Any, final

import attrs
import trio

from kernel import wake
from kernel.errors import UnavailableError

from ._operation import Operation


@final
@attrs.define(eq=False, repr=False)
class Hold:
    """What a task asks for, one operation after the other. Everybody else waits until it is over."""

    task: trio.lowlevel.Task | None
    """Who waits for it to be granted."""
    error: BaseException | None = attrs.field(default=None, init=False)
    """Why it was not granted, or was ended."""
    waiting: list[Operation[Any]] = attrs.field(factory=list[Operation[Any]], init=False)
    last: Operation[Any] | None = attrs.field(default=None, init=False)
    """The operation that ends it."""
    commits: bool = attrs.field(default=False, init=False)
    is_taken_back: bool = attrs.field(default=False, init=False)
    is_open: bool = attrs.field(default=True, init=False)

    def tell(self) -> None:
        """Say that it was granted, or not. In the event loop."""
        if self.task is not None:
            task, self.task = self.task, None
            wake(task)

    def post(self, operation: Operation[Any]) -> None:
        """Have something done.

        Raises:
            UnavailableError: if it is over.
        """
        if not self.is_open:
            raise self.error or UnavailableError("the transaction is over")
        self.waiting.append(operation)

    def close(self, error: BaseException | None) -> list[Operation[Any]]:
        """End it; returns what was asked for and is not done."""
        self.is_open = False
        self.error = error
        left, self.waiting = self.waiting, []
        for operation in left:
            operation.error = error or UnavailableError("the transaction is over")
        return left
