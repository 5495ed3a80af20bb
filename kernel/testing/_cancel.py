"""Cancelling an operation at each of its checkpoints in turn.

Whatever happens between two checkpoints is atomic in trio, so these runs are all that cancellation can do to an
operation. Deterministic for an operation of one task; with more, trio's scheduler chooses between equal turns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs
import trio
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@final
@attrs.define(eq=False, repr=False)
class _Trigger(trio.abc.Instrument):
    """Cancels a scope when a task or one of its descendants stops for the n-th time."""

    at: int
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    root: trio.lowlevel.Task | None = None
    steps: int = 0
    cancelled_at: float | None = None
    ended_at: float | None = None

    @override
    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._watches(task):
            self.steps += 1
            if self.steps == self.at:
                self.cancelled_at = trio.current_time()
                self.scope.cancel()

    def _watches(self, task: trio.lowlevel.Task) -> bool:
        current: trio.lowlevel.Task | None = task
        while self.root is not None and current is not None:
            if current is self.root:
                return True
            current = None if current.parent_nursery is None else current.parent_nursery.parent_task
        return False

    async def run(self, operation: Callable[[], Awaitable[None]], failures: list[Exception]) -> None:
        await trio.lowlevel.checkpoint()
        self.root = trio.lowlevel.current_task()
        try:
            with self.scope:
                await operation()
        except Exception as error:  # noqa: BLE001  raised again outside of the nursery, so that it is not in a group
            failures.append(error)
        finally:
            self.root = None
            self.ended_at = trio.current_time()


async def cancel_at_checkpoint(operation: Callable[[], Awaitable[None]], at: int) -> bool:
    """Run an operation and cancel it at its n-th checkpoint.

    Args:
        operation: Called once, in a task of its own. The checkpoints of tasks that it starts count too.
        at: 1 is the first checkpoint.

    Returns:
        Whether the operation came that far. If not, it ran to its end.

    Raises:
        Exception: what the operation raised, if it did, with a note that says where it was cancelled.

    Cancellation: Is a checkpoint.
    """
    return await cancel_and_time(operation, at) is not None


async def cancel_and_time(operation: Callable[[], Awaitable[None]], at: int) -> float | None:
    """As `cancel_at_checkpoint`, but return how many seconds the operation took to end once it was cancelled."""
    trigger = _Trigger(at)
    failures: list[Exception] = []
    trio.lowlevel.add_instrument(trigger)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trigger.run, operation, failures)
    finally:
        trio.lowlevel.remove_instrument(trigger)
    if failures:
        if trigger.scope.cancel_called:
            failures[0].add_note(f"cancelled at checkpoint {at}")
        raise failures[0]
    if trigger.cancelled_at is None or trigger.ended_at is None:
        return None
    return trigger.ended_at - trigger.cancelled_at


async def cancel_at_each_checkpoint(operation: Callable[[], Awaitable[None]]) -> int:
    """Run an operation again and again, cancelled at its 1st, 2nd, ... checkpoint, until it runs to its end.

    Works on the real clock and on `trio.testing.MockClock` alike.

    Args:
        operation: Called for each run; must make its own fresh state, and must end by itself if not cancelled.

    Returns:
        The number of checkpoints that the operation has.

    Raises:
        Exception: what the operation raised, if it did, with a note that says where it was cancelled.

    Cancellation: Is a checkpoint.
    """
    at = 1
    while await cancel_at_checkpoint(operation, at):
        at += 1
    return at - 1
