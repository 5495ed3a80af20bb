"""Calls under way: whose answer has come, and how all of them end when none comes any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, final

import trio
from trio.lowlevel import Abort, checkpoint, current_task, wait_task_rescheduled

from .envelope import Envelope
from .loop import wake

KeyT = TypeVar("KeyT")


@final
class PendingCall:
    """One call. It ends once, with an answer or an error, and one task waits for that."""

    __slots__ = ("_error", "_reply", "_task", "is_done", "is_sent")

    def __init__(self) -> None:
        self._reply: Envelope | None = None
        self._error: Exception | None = None
        self._task: trio.lowlevel.Task | None = None
        self.is_done = False
        """Whether it has ended."""
        self.is_sent = False
        """Whether the other side may have it, as far as whoever sends it has noted that here."""

    def end(self, reply: Envelope | None = None, *, error: Exception | None = None) -> None:
        """End it with one of the two; what has ended stays as it is."""
        if self.is_done:
            return
        self._reply, self._error, self.is_done = reply, error, True
        if self._task is not None:
            wake(self._task)
            self._task = None

    async def wait(self) -> Envelope:
        """Return the answer, once it is there.

        Raises:
            Exception: what it ended with, if that is an error.

        Cancellation: Is a checkpoint. A call that has ended when its wait is cancelled has its end nevertheless.
        """
        if self.is_done:
            await checkpoint()
        else:
            self._task = current_task()
            await wait_task_rescheduled(self._leave)
        if self._reply is None:
            assert self._error is not None  # it ends with one of the two
            raise self._error
        return self._reply

    def _leave(self, _: object) -> Abort:
        self._task = None
        return Abort.SUCCEEDED


@final
class PendingCalls(Generic[KeyT]):
    """Those of one client, each by the key that its answer has. Whoever makes the calls bounds how many there are."""

    __slots__ = ("_calls", "late_replies")

    def __init__(self) -> None:
        self._calls: dict[KeyT, PendingCall] = {}
        self.late_replies = 0
        """Answers that came when nobody waited for them any more, and second answers to one call."""

    def __len__(self) -> int:
        """How many wait for their answer."""
        return len(self._calls)

    def add(self, key: KeyT, call: PendingCall | None = None) -> PendingCall:
        """Have an answer with that key end a call, one that begins or the one that is given; return it."""
        call = self._calls[key] = PendingCall() if call is None else call
        return call

    def remove(self, key: KeyT) -> None:
        """Forget a call, however it has ended: each that was added is to be removed."""
        del self._calls[key]

    def answer(self, key: KeyT, reply: Envelope) -> None:
        """Hand an answer to who waits for it; what comes too late is counted, and dropped."""
        call = self._calls.get(key)
        if call is None or call.is_done:
            self.late_replies += 1
        else:
            call.end(reply)

    def fail(self, error: Callable[[], Exception], *, only_sent: bool = False) -> None:
        """End all that have not ended with an error each, since no answer comes any more.

        Args:
            error: Makes it: an error that several tasks raise would show the way of all of them.
            only_sent: Whether those that the other side cannot have go on.
        """
        for call in self._calls.values():
            if not call.is_done and (call.is_sent or not only_sent):
                call.end(error=error())
