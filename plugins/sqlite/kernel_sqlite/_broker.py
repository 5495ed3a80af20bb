"""The broker: the file behind the contract of `kernel.abc.Broker`."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final, final

import attrs
import trio
from typing_extensions import override

from kernel import Envelope
from kernel.abc import (
    Broker,
    Context,
    Delivery,
    Lease,
    Leasing,
    Subscription,
    Topology,
    Transaction,
    Transactional,
    check_lease_name,
)
from kernel.errors import ConflictError, KernelError, UnavailableError

from ._access import Access
from ._consumer import Consumer, Kitchen
from ._delivery import PeekedDelivery
from ._deserted import Deserted, look, note
from ._events import MessageDropped, QueueUnconsumed
from ._lease import SqliteLease
from ._letter import write_letter
from ._operation import Action, Sending
from ._shelves import Effects
from ._store import Store
from ._teller import Listener, Teller
from ._thread import StoreThread
from ._transaction import open_transaction

_LOOK: Final = 900.0
"""Seconds between two notes of what is being consumed, at most."""
_FIRST_LOOK: Final = 60.0
"""Seconds after which the consumers of a service that has started are there."""


@final
@attrs.define(eq=False, repr=False)
class _Hub(Kitchen):
    """Who waits for what."""

    poll: Callable[[bool], None]
    """Called with whether anybody is hungry, when that changes."""
    _hungry: dict[str, dict[Consumer, None]] = attrs.field(factory=dict[str, dict[Consumer, None]], init=False)
    _soon: dict[Consumer, None] = attrs.field(factory=dict[Consumer, None], init=False)

    @override
    def hungry(self, consumer: Consumer) -> None:
        if not self._hungry:
            self.poll(True)  # noqa: FBT003  a callback has no keywords
        self._hungry.setdefault(consumer.queue, {})[consumer] = None

    @override
    def soon(self, consumer: Consumer) -> None:
        self._soon[consumer] = None

    @override
    def forget(self, consumer: Consumer) -> None:
        self._soon.pop(consumer, None)
        waiting = self._hungry.get(consumer.queue, {})
        waiting.pop(consumer, None)
        if not waiting and self._hungry.pop(consumer.queue, None) is not None and not self._hungry:
            self.poll(False)  # noqa: FBT003  as above

    def ready(self, queue: str) -> None:
        """Feed those who wait at a queue."""
        for consumer in list(self._hungry.get(queue, ())):
            self.forget(consumer)
            consumer.feed()

    def all_ready(self) -> None:
        """Feed everybody."""
        for queue in list(self._hungry):
            self.ready(queue)

    def told(self) -> None:
        """Feed those who have places again."""
        soon, self._soon = self._soon, {}
        for consumer in soon:
            self.forget(consumer)
            consumer.feed()


@final
@attrs.define(eq=False, repr=False)
class SqliteBroker(Broker, Transactional, Leasing):
    """A broker in one file, which several processes may use at a time.

    What it confirms is in the file, and on the disk with `synchronous = "full"`. A queue whose `dead_letters` nobody
    declared is refused. When the file takes nothing, operations raise `StorageError`; nothing has to be restarted
    when it does again.
    """

    _access: Access
    _context: Context
    _thread: StoreThread = attrs.field(init=False)
    _hub: _Hub = attrs.field(init=False)
    _consumers: set[Consumer] = attrs.field(factory=set[Consumer], init=False)
    _exclusive: set[str] = attrs.field(factory=set[str], init=False)
    """Exclusive queues that have their consumer."""

    def start(self, *, poll_interval: float, transaction_timeout: float) -> None:
        """Start the thread of the file."""
        listener = Listener(self._heard, self._foreign, self._health)
        self._thread = StoreThread(self._access, Teller(listener), poll_interval, transaction_timeout)
        self._hub = _Hub(self._thread.poll)
        self._thread.start()

    async def wait_broken(self) -> None:
        """Wait for the end of the thread of the file.

        Raises:
            UnavailableError: if it ended by itself.

        Cancellation: Is a checkpoint.
        """
        await self._thread.ended.wait()
        if self._thread.failure is not None:
            raise self._thread.failure

    async def watch_queues(self, after: float) -> None:
        """Note what is consumed, and tell of bound queues that nobody has consumed for so many seconds; never returns.

        Cancellation: Is a checkpoint.
        """
        told: dict[str, float] = {}
        pause = min(after / 4, _FIRST_LOOK)
        while True:
            await trio.sleep(pause)
            pause = min(after / 4, _LOOK)
            consumed = {consumer.queue for consumer in self._consumers}
            try:
                found = await self._thread.perform(partial(look, consumed=consumed, after=after))
            except KernelError:
                continue  # the health of the file tells
            now = trio.current_time()
            for one in found:
                if now >= told.get(one.queue, -math.inf) + after / 4:
                    told[one.queue] = now
                    self._tell(one)

    def _tell(self, one: Deserted) -> None:
        self._context.emit(QueueUnconsumed(component=self._context.id, **attrs.asdict(one)))
        told = (
            f'queue "{one.queue}" is bound and fills, and nobody has consumed it for {one.seconds / 3600:.1f} h: '
            "consume it, or end that with `kernel queue delete` or `unbind`"
        )
        self._context.log.warning(told, waiting=one.waiting, limit=one.limit)

    async def aclose(self) -> None:
        """Give back what is claimed, remove our exclusive queues and close the file.

        Cancellation: Is a checkpoint. If cancelled, the thread does the rest by itself.
        """
        for consumer in list(self._consumers):
            consumer.leave(UnavailableError("the broker is closed"))
        await self._thread.aclose()

    @override
    async def declare(self, topology: Topology) -> None:
        await self._thread.perform(lambda store: store.declare(topology))

    @override
    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return self._subscribe(subscription)

    @asynccontextmanager
    async def _subscribe(self, subscription: Subscription) -> AsyncGenerator[AsyncIterator[Delivery]]:
        name = subscription.queue
        is_exclusive = await self._thread.perform(partial(_join, name=name))
        consumer = self._join(subscription, is_exclusive=is_exclusive)
        try:
            yield consumer
        finally:
            self._leave(consumer, is_exclusive=is_exclusive)

    # No coroutine of its own: each that a message goes through costs. mypy and pyright differ about what `async def` is.
    @override
    def send(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, envelope: Envelope, *, exchange: str, mandatory: bool = False
    ) -> Coroutine[Any, Any, None]:
        now = 0.0 if envelope.deadline == math.inf else self._access.clock.wall()
        letter = write_letter(envelope, now=now)
        return self._thread.complete(Sending(letter, exchange, mandatory))

    @override
    async def peek(self, queue: str, *, limit: int = 100) -> Sequence[Delivery]:
        claims = await self._thread.perform(lambda store: store.peek(queue, limit))
        return [PeekedDelivery.of(claim, now=self._access.clock.wall()) for claim in claims]

    @override
    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return open_transaction(self._thread, self._access.guard)

    @override
    def lease(self, name: str) -> Lease:
        return SqliteLease(self._thread, check_lease_name(name))

    def _join(self, subscription: Subscription, *, is_exclusive: bool) -> Consumer:
        if subscription.prefetch < 1:
            raise ValueError(f"prefetch must be 1 or more, not {subscription.prefetch}")
        if is_exclusive:
            if subscription.queue in self._exclusive:
                raise ConflictError(f'queue "{subscription.queue}" is exclusive and has a consumer')
            self._exclusive.add(subscription.queue)
        consumer = Consumer(
            subscription.queue, subscription.prefetch, self._thread, self._hub, subscription.reply_exchange
        )
        self._consumers.add(consumer)
        return consumer

    def _leave(self, consumer: Consumer, *, is_exclusive: bool) -> None:
        consumer.leave(UnavailableError("the subscription has been left"))
        self._consumers.discard(consumer)
        if is_exclusive:
            self._exclusive.discard(consumer.queue)
            self._thread.submit_last(Action(lambda store: store.leave(consumer.queue), is_persistent=True))
        else:
            self._thread.submit_last(Action(lambda store: note(store, [consumer.queue])))

    def _heard(self, effects: Effects) -> None:
        for drop in effects.drops:
            self._context.emit(
                MessageDropped(
                    component=self._context.id,
                    queue=drop.queue,
                    reason=drop.reason,
                    message_id=drop.message_id,
                    subject=drop.subject,
                )
            )
        self._hub.told()
        for queue in effects.ready:
            self._hub.ready(queue)
        if effects.is_foreign:
            self._hub.all_ready()

    def _foreign(self) -> None:
        self._hub.all_ready()

    def _health(self, complaint: str) -> None:
        if complaint:
            self._context.report_degraded(complaint)
        else:
            self._context.report_ready()


def _join(store: Store, *, name: str) -> bool:
    is_exclusive = store.join(name)
    if not is_exclusive:
        note(store, [name])
    return is_exclusive
