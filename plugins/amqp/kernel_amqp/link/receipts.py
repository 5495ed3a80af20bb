"""What the broker answers one message, for whoever waits for that: also later, and in another task than its sender's."""

from __future__ import annotations

from typing import final

import attrs
import trio

from kernel import wake

from .._errors import UnansweredError


@final
@attrs.define(eq=False, repr=False)
class Receipt:
    """Whether the broker has taken a message that it may have; one task at a time waits for that."""

    is_answered: bool = attrs.field(default=False, init=False)
    is_bounded: bool = attrs.field(default=False, init=False)
    """Whether the next wait may be ended by `give_up`."""
    _failure: Exception | None = attrs.field(default=None, init=False)
    _task: trio.lowlevel.Task | None = attrs.field(default=None, init=False)

    async def wait(self) -> Exception | None:
        """Wait for the answer, however long it takes; return why the broker did not take the message, None if it did.

        Raises:
            UnansweredError: if the wait is bounded, and somebody has given it up.

        Cancellation: Is a checkpoint. If cancelled or given up, the answer can still be waited for.
        """
        if self.is_answered:
            await trio.lowlevel.checkpoint()
            return self._failure
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abandon)
        if not self.is_answered:
            raise UnansweredError
        return self._failure

    def answer(self, failure: Exception | None) -> None:
        """Tell what the broker has answered, or why it will not."""
        self.is_answered, self._failure = True, failure
        self._wake()

    def give_up(self) -> None:
        """End a wait that is bounded; the next one is not."""
        if self.is_bounded:
            self.is_bounded = False
            self._wake()

    def _wake(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            wake(task)

    def _abandon(self, _: object) -> trio.lowlevel.Abort:
        self._task, self.is_bounded = None, False
        return trio.lowlevel.Abort.SUCCEEDED
