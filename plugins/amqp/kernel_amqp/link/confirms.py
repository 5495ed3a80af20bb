"""The publishes of one channel that the broker has not confirmed, and the tasks that wait for them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Awaitable
from typing import Final, TypeAlias, final

import attrs
import trio

from kernel import wake

from .._errors import ChannelClosedError, ConfirmLateError, LinkLostError, RefusedError, ReturnedError
from ..core import Properties, Returned
from .receipts import Receipt

MAX_UNCONFIRMED: Final = 65_536
"""Publishes without an answer, cancelled ones included, before others have to wait."""

CONFIRM_TIMEOUT: Final = 30.0
"""Seconds that a message that was written waits for an answer: a quorum queue without a majority gives none."""
_LOOK: Final = 5.0
"""Seconds between two looks that are remembered."""

Mark: TypeAlias = tuple[str, str, str | None, str | None]
"""What a returned message is recognised by, besides that returns come in the order of the publishes: exchange, routing
key, message id, correlation id."""


def mark_of(exchange: str, routing_key: str, properties: Properties) -> Mark:
    """Return the mark of a message."""
    return exchange, routing_key, properties.message_id, properties.correlation_id


@final
@attrs.define(eq=False, repr=False)
class Confirms:
    """Who waits for which publish number.

    A publish that was cancelled stays until its confirm comes: the broker answers it all the same.
    """

    _tasks: dict[int, trio.lowlevel.Task | None] = attrs.field(factory=dict[int, trio.lowlevel.Task | None], init=False)
    _receipts: dict[int, Receipt] = attrs.field(factory=dict[int, Receipt], init=False)
    """Of those whose answer is waited for however long it takes."""
    _failures: dict[int, Exception] = attrs.field(factory=dict[int, Exception], init=False)
    """What the tasks that have been woken have to raise."""
    _marks: dict[int, Mark] = attrs.field(factory=dict[int, Mark], init=False)
    """Of mandatory messages that can still be returned."""
    _returned: dict[int, Returned] = attrs.field(factory=dict[int, Returned], init=False)
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    """Those who wait for room."""
    _looks: deque[tuple[float, int]] = attrs.field(factory=deque[tuple[float, int]], init=False)
    """When somebody looked, and the last publish at that time."""

    @property
    def is_full(self) -> bool:
        """Whether the broker has to answer something before there may be more."""
        return len(self._tasks) >= MAX_UNCONFIRMED

    async def wait_room(self) -> None:
        """Wait until the broker has answered something, or will no more.

        Cancellation: Is a checkpoint.
        """
        await self._waiting.park()

    def expect_return(self, number: int, mark: Mark) -> None:
        """Say that a message is mandatory."""
        self._marks[number] = mark

    def wait(self, number: int) -> Awaitable[object]:
        """Wait until the broker has answered a publish, or will not; `failure` says what it answered.

        Cancellation: Is a checkpoint. If cancelled, the answer is ignored when it comes.
        """
        tasks = self._tasks
        tasks[number] = trio.lowlevel.current_task()

        def abandon(_: object) -> trio.lowlevel.Abort:
            tasks[number] = None
            return trio.lowlevel.Abort.SUCCEEDED

        return trio.lowlevel.wait_task_rescheduled(abandon)  # noqa: ASYNC105  awaited by the caller

    def receipt(self, number: int) -> Receipt:
        """Return what tells of the answer to a publish, which `sweep` does not fail; in place of `wait`."""
        self._tasks[number] = None
        self._receipts[number] = receipt = Receipt()
        return receipt

    def failure(self, number: int) -> Exception | None:
        """Return, once, why the broker did not take a message that was waited for; None if it did."""
        return self._failures.pop(number, None) if self._failures else None

    def confirm(self, first: int, last: int, *, taken: bool) -> None:
        """Wake those whose messages the broker has answered."""
        if self._waiting:
            self._waiting.unpark_all()
        if not taken or self._returned:
            self._confirm_each(first, last, taken=taken)
            return
        for number in range(first, last + 1):
            self._marks.pop(number, None)
            task = self._tasks.pop(number, None)
            if task is not None:
                wake(task)
            elif self._receipts:
                self._answer(number, None)

    def give_back(self, returned: Returned) -> None:
        """Note that a mandatory message came back; its confirm follows."""
        mark = mark_of(returned.exchange, returned.routing_key, returned.properties)
        for number, known in self._marks.items():
            if known == mark:
                self._returned[number] = returned
                del self._marks[number]
                return

    def sweep(self, now: float) -> None:
        """Fail what has had no answer for `CONFIRM_TIMEOUT`, and up to one more look; called from time to time.

        A clock for each message would cost more than all the rest of it.
        """
        while self._looks and self._looks[0][0] <= now - CONFIRM_TIMEOUT:
            self._fail_up_to(self._looks.popleft()[1])
        if self._tasks and not (self._looks and self._looks[-1][0] > now - _LOOK):
            self._looks.append((now, next(reversed(self._tasks))))

    def _fail_up_to(self, last: int) -> None:
        late = list(itertools.takewhile(lambda number: number <= last, self._tasks))
        for number in late:
            if number in self._receipts:
                continue
            task, self._tasks[number] = self._tasks[number], None  # the answer may still come
            self._marks.pop(number, None)
            if task is not None:
                self._failures[number] = ConfirmLateError(CONFIRM_TIMEOUT)
                wake(task)

    def fail(self, error: ChannelClosedError | LinkLostError) -> None:
        """Wake everybody who waits: no answer will come."""
        self._waiting.unpark_all()
        self._marks.clear()
        self._returned.clear()
        for number in list(self._tasks):
            self._wake(number, error)

    def _confirm_each(self, first: int, last: int, *, taken: bool) -> None:
        for number in range(first, last + 1):
            self._marks.pop(number, None)
            self._wake(number, self._failure_of(number, taken=taken))

    def _failure_of(self, number: int, *, taken: bool) -> Exception | None:
        returned = self._returned.pop(number, None)
        if returned is None:
            return None if taken else RefusedError()
        key = returned.routing_key
        return ReturnedError(returned.code, returned.text, exchange=returned.exchange, routing_key=key)

    def _wake(self, number: int, failure: Exception | None) -> None:
        task = self._tasks.pop(number, None)
        if task is None:
            self._answer(number, failure)
            return
        if failure is not None:
            self._failures[number] = failure
        wake(task)

    def _answer(self, number: int, failure: Exception | None) -> None:
        receipt = self._receipts.pop(number, None)
        if receipt is not None:
            receipt.answer(failure)
