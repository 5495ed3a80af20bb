"""The synchronous methods of one channel: one at a time, each with its own answer."""

from __future__ import annotations

from typing import final

import attrs
import trio
from pamqp import base

from kernel import wake

from .._errors import ChannelClosedError, LinkLostError


@final
@attrs.define(eq=False, repr=False)
class Calls:
    """Keeps methods apart: the next is sent when the one before is answered, even if nobody waits for that any more."""

    _is_busy: bool = attrs.field(default=False, init=False)
    _caller: trio.lowlevel.Task | None = attrs.field(default=None, init=False)
    _answer: base.Frame | ChannelClosedError | LinkLostError | None = attrs.field(default=None, init=False)
    _closed: ChannelClosedError | LinkLostError | None = attrs.field(default=None, init=False)
    _queue: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    async def wait_turn(self) -> None:
        """Wait until no method is on its way; nobody else runs if none is.

        Cancellation: Is a checkpoint if it has to wait; else it only raises if cancelled.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._is_busy and self._closed is None:
            await self._queue.park()

    async def wait_answer(self) -> base.Frame | None:
        """Wait for the answer to the method that was sent just before; None where it is no frame.

        Raises:
            ChannelClosedError: if the broker closed the channel instead.
            LinkLostError: if the connection is gone.

        Cancellation: Is a checkpoint. If cancelled, the answer is ignored when it comes.
        """
        self._is_busy = True
        self._caller = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abandon)
        answer, self._answer = self._answer, None
        if isinstance(answer, (ChannelClosedError, LinkLostError)):
            raise answer.again(written=True)
        return answer

    def answer(self, answer: base.Frame | None) -> None:
        """Hand the answer to whoever waits for it."""
        self._is_busy = False
        self._wake(answer)
        self._queue.unpark()

    def fail(self, error: ChannelClosedError | LinkLostError) -> None:
        """Wake everybody who waits: no answer will come."""
        self._closed = error
        self._wake(error)
        self._queue.unpark_all()

    def _wake(self, answer: base.Frame | ChannelClosedError | LinkLostError | None) -> None:
        caller, self._caller = self._caller, None
        if caller is not None:
            self._answer = answer
            wake(caller)

    def _abandon(self, _: object) -> trio.lowlevel.Abort:
        self._caller = None
        return trio.lowlevel.Abort.SUCCEEDED
