"""What takes from a queue: one for each subscription."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import final

import attrs
import trio
from typing_extensions import override

from kernel import Pace, wake
from kernel.abc import Delivery
from kernel.errors import UnavailableError

from ._delivery import SqliteDelivery
from ._letter import Claim, read_letter
from ._operation import Action, Operation
from ._store import Store
from ._thread import StoreThread


class Kitchen(ABC):
    """Who tells a consumer that there may be something to take."""

    __slots__ = ()

    @abstractmethod
    def hungry(self, consumer: Consumer) -> None:
        """Have `feed` called when something comes into the consumer's queue; once."""

    @abstractmethod
    def soon(self, consumer: Consumer) -> None:
        """Have `feed` called when all that the transaction just committed has been told."""

    @abstractmethod
    def forget(self, consumer: Consumer) -> None:
        """Have `feed` not called any more."""


@final
@attrs.define(eq=False, repr=False)
class _Waiter:
    """A task that waits in `__anext__`."""

    task: trio.lowlevel.Task
    delivery: Delivery | None = None


@final
@attrs.define(eq=False, repr=False)
class Consumer(AsyncIterator[Delivery]):
    """Takes from one queue, at most `prefetch` deliveries that are not settled.

    Asks the file only when a task waits for a delivery, and then for as many as there are places: one transaction
    for all of them. What nobody took goes back when it leaves.
    """

    queue: str
    prefetch: int
    _thread: StoreThread
    _kitchen: Kitchen
    _reply_exchange: str
    _free: int = attrs.field(init=False, default=attrs.Factory(lambda self: self.prefetch, takes_self=True))
    _buffer: deque[Claim] = attrs.field(factory=deque[Claim], init=False)
    _waiters: deque[_Waiter] = attrs.field(factory=deque[_Waiter], init=False)
    _is_claiming: bool = attrs.field(default=False, init=False)
    _is_called: bool = attrs.field(default=False, init=False)
    """Whether something came into the queue while a claim was under way."""
    _pace: Pace = attrs.field(factory=Pace, init=False)
    _error: BaseException | None = attrs.field(default=None, init=False)
    """Why nothing can be taken any more."""

    @override
    async def __anext__(self) -> Delivery:
        await self._pace.step()
        self._check()
        if not self._waiters and (delivery := self._next()) is not None:
            return delivery
        return await self._wait(_Waiter(trio.lowlevel.current_task()))

    def feed(self) -> None:
        """Ask for messages, if somebody waits for one and there is a place."""
        if self._is_claiming:
            self._is_called = True
        elif self._waiters and self._free and self._error is None:
            limit, self._free = self._free, 0
            self._is_claiming, self._is_called = True, False
            self._thread.submit(
                Action(
                    lambda store: store.claim(self.queue, limit),
                    heard=lambda done: self._claimed(done, limit),
                    is_persistent=True,
                )
            )

    def leave(self, error: BaseException) -> None:
        """Give back what was not taken, and raise an error in all who wait."""
        self._kitchen.forget(self)
        self._error = error
        self._give_back()
        while self._waiters:
            wake(self._waiters.popleft().task)

    def _check(self) -> None:
        if self._error is not None:
            raise UnavailableError(f'queue "{self.queue}" is not consumed from here any more') from self._error

    async def _wait(self, waiter: _Waiter) -> Delivery:
        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiters.remove(waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiters.append(waiter)
        self.feed()
        await trio.lowlevel.wait_task_rescheduled(abort)
        if waiter.delivery is None:
            self._check()
        assert waiter.delivery is not None  # woken with a delivery or by `leave`, and by nothing else
        return waiter.delivery

    def _claimed(self, done: Operation[list[Claim]], limit: int) -> None:
        self._is_claiming = False
        claims = done.result if done.error is None else None
        self._free += limit - len(claims or ())
        self._buffer.extend(claims or ())
        if self._error is not None:
            self._give_back()
        elif done.error is not None:
            self.leave(done.error)
        else:
            self._serve()

    def _serve(self) -> None:
        while self._waiters and (delivery := self._next()) is not None:
            waiter = self._waiters.popleft()
            waiter.delivery = delivery
            wake(waiter.task)
        if not self._waiters or not self._free:
            return
        if self._is_called:
            self.feed()
        else:
            self._kitchen.hungry(self)

    def _next(self) -> Delivery | None:
        """Return a delivery that may be begun; None if there is none here."""
        while self._buffer:
            claim = self._buffer.popleft()
            now = 0.0 if claim.letter.deadline is None else self._thread.clock.wall()
            if claim.letter.deadline is not None and claim.letter.deadline <= now:
                self._end(partial(Store.expire, claim=claim))
                continue
            try:
                envelope = read_letter(claim.letter, now=now)
            except ValueError as error:
                self._end(partial(Store.discard, claim=claim, reason=f"it cannot be read: {error}"))
                continue
            return SqliteDelivery(claim, envelope, self._thread, self._freed, self._reply_exchange)
        return None

    def _end(self, action: Callable[[Store], None]) -> None:
        self._thread.submit_last(Action(action, heard=lambda _: self._freed(), is_persistent=True))

    def _freed(self) -> None:
        self._free += 1
        if self._waiters:
            self._kitchen.soon(self)

    def _give_back(self) -> None:
        if self._buffer:
            claims = list(self._buffer)
            self._buffer.clear()
            self._thread.submit_last(
                Action(lambda store: store.give_back(claims, redelivered=False), is_persistent=True)
            )
