"""What takes from a queue: one for each subscription."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import assert_never, final

import attrs
import trio
from typing_extensions import override

from kernel import Ack, DeadLetter, Outcome, Pace, Retry, Return, wake
from kernel.abc import Delivery
from kernel.errors import UnavailableError, UnknownOutcomeError

from ._delivery import MemoryDelivery
from ._queue import MemoryQueue, Wish
from ._store import Store
from ._waiting import Entry


@final
@attrs.define(eq=False, repr=False)
class _Waiter(Wish):
    """A task that waits in `__anext__`."""

    task: trio.lowlevel.Task
    consumer: Consumer
    delivery: Delivery | None = None

    @override
    def grant(self, entry: Entry) -> None:
        self.delivery = self.consumer.deliver(entry)
        self.consumer.hungry.remove(self)
        wake(self.task)


@final
@attrs.define(eq=False, repr=False)
class Consumer(AsyncIterator[Delivery]):
    """Takes from one queue, at most `prefetch` deliveries that are not settled.

    It takes a message only for a task that asks for one, so there is nothing to give back when it leaves.
    """

    queue: MemoryQueue
    prefetch: int
    store: Store
    pace: Pace
    reply_exchange: str
    hungry: list[_Waiter] = attrs.field(factory=list[_Waiter], init=False)
    """Tasks that wait at the queue; each has its slot already."""
    _stalled: deque[_Waiter] = attrs.field(factory=deque[_Waiter], init=False)
    """Tasks that wait for a slot: until something is settled."""
    _free: int = attrs.field(init=False, default=attrs.Factory(lambda self: self.prefetch, takes_self=True))
    _left: bool = attrs.field(default=False, init=False)

    @override
    async def __anext__(self) -> Delivery:
        # Those who share a queue take turns; who has it alone need not.
        await (self.pace.turn() if self.queue.consumers > 1 else self.pace.step())
        self._check()
        if self._free and (entry := self.queue.take()) is not None:
            self._free -= 1
            return self.deliver(entry)
        return await self._wait(_Waiter(trio.lowlevel.current_task(), self))

    def deliver(self, entry: Entry) -> Delivery:
        """Make a delivery of an entry; its slot is taken."""
        entry.attempts += 1
        self.store.ledger.delivered += 1
        return MemoryDelivery(entry, entry.envelope, entry.attempts, entry.sent, self.pace, self._settle)

    def leave(self) -> None:
        """Wake all who wait; nothing is taken any more."""
        self._left = True
        for waiter in (*self.hungry, *self._stalled):
            self.queue.forget(waiter)
            wake(waiter.task)
        self.hungry.clear()
        self._stalled.clear()

    async def _wait(self, waiter: _Waiter) -> Delivery:
        def abort(_: object) -> trio.lowlevel.Abort:
            self._give_up(waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        self._stalled.append(waiter)
        self._feed()
        await trio.lowlevel.wait_task_rescheduled(abort)
        if waiter.delivery is None:
            self._check()
        assert waiter.delivery is not None  # woken by a grant or by `leave`, and by nothing else
        return waiter.delivery

    def _check(self) -> None:
        if self._left:
            raise UnavailableError(f'nobody consumes from queue "{self.queue.spec.name}" here any more')

    def _give_up(self, waiter: _Waiter) -> None:
        if waiter in self._stalled:
            self._stalled.remove(waiter)
            return
        self.hungry.remove(waiter)
        self.queue.forget(waiter)
        self._free += 1
        self._feed()

    def _feed(self) -> None:
        while self._free and self._stalled:
            self._free -= 1
            waiter = self._stalled.popleft()
            self.hungry.append(waiter)
            entry = self.queue.take()
            if entry is None:
                self.queue.wish(waiter)
            else:
                waiter.grant(entry)

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        if self.store.closed:
            raise UnknownOutcomeError(f"delivery {entry.envelope.id} outlived its broker, and has gone back")
        self._apply(entry, outcome)
        self._free += 1
        if self._stalled:
            self._feed()

    def _apply(self, entry: Entry, outcome: Outcome) -> None:
        ledger = self.store.ledger
        match outcome:
            case Ack(reply):
                if reply is not None:
                    self.store.reply(reply, self.reply_exchange)
                ledger.acked += 1
                if entry.key is not None:
                    self.queue.release(entry)
            case Retry(after):
                ledger.retried += 1
                self._again(entry, after)
            case DeadLetter(reason):
                ledger.dead += 1
                self.store.bury(self.queue, entry, reason)
                if entry.key is not None:
                    self.queue.release(entry)
            case Return():
                ledger.returned += 1
                entry.attempts -= 1
                self._again(entry, None)
            case _:
                assert_never(outcome)

    def _again(self, entry: Entry, after: float | None) -> None:
        entry.redelivered = True
        if self.queue.gone:
            self.store.ledger.drop(entry.envelope, queue=self.queue.spec.name, reason="its queue is gone")
        elif after is None:
            self.queue.put_back(entry)
        else:
            self.queue.put_later(entry, after)
