"""Cancelled calls: how the caller tells of them without waiting, and how the callee hears of them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Final, final

import attrs
import trio

from kernel import Ack, Envelope
from kernel.abc import Binding, Broker, Delivery, Intake, Queue, Subscription, Topology
from kernel.errors import KernelError, SubscriptionLostError

CANCEL_EXCHANGE: Final = "kernel.cancellations"
MAX_EARLY: Final = 10_000
"""Cancellations that are remembered, because they came before their requests; then the oldest is forgotten."""
_MAX_UNSENT: Final = 10_000
"""Cancellations that wait to be sent; more are dropped."""
_MAX_ID: Final = 255
"""Characters of an id that is remembered: as many as any broker carries."""
_AT_A_TIME: Final = 100
"""Cancellations that are sent together."""
_SEND_TIMEOUT: Final = 2.0
"""Seconds that sending one may take."""
_FAREWELL: Final = 0.5
"""Seconds for those that are not sent yet when the driver closes."""
_PREFETCH: Final = 100


@final
@attrs.define(eq=False, repr=False)
class Teller:
    """Tells callees which calls nobody waits for any more, in a task of its own: no caller waits for it.

    A cancellation is the subject and the correlation id of its request, and nothing else. It is worth an attempt and
    no more: what is lost costs the callee work that nobody needs.
    """

    _broker: Broker
    _exchange: str
    _unsent: deque[Envelope] = attrs.field(factory=deque[Envelope], init=False)
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _done: trio.Event = attrs.field(factory=trio.Event, init=False)
    dropped: int = attrs.field(default=0, init=False)
    """Cancellations that were not sent."""

    def tell(self, request: Envelope) -> None:
        """Have the callee of a request told that nobody waits for the answer."""
        if self._closed or len(self._unsent) >= _MAX_UNSENT:
            self.dropped += 1
            return
        self._unsent.append(Envelope(subject=request.subject, correlation_id=request.correlation_id))
        self._changed.unpark_all()

    async def run(self) -> None:
        """Send until `finish` is called.

        Cancellation: Is a checkpoint. If cancelled, the rest is not sent.
        """
        await trio.lowlevel.checkpoint()
        while self._unsent or not self._closed:
            if self._unsent:
                await self._send_some()
            else:
                await self._changed.park()
        self._done.set()

    async def finish(self) -> None:
        """Take no more, and wait a short time until the rest is sent.

        Cancellation: Is a checkpoint.
        """
        self._closed = True
        self._changed.unpark_all()
        with trio.move_on_after(_FAREWELL):
            await self._done.wait()

    async def _send_some(self) -> None:
        """Send what there is, together: each waits for the broker, and the last would wait for all before it."""
        async with trio.open_nursery() as nursery:
            for _ in range(min(len(self._unsent), _AT_A_TIME)):
                nursery.start_soon(self._send, self._unsent.popleft())

    async def _send(self, cancellation: Envelope) -> None:  # noqa: ASYNC910  it sends, or sending fails
        with trio.move_on_after(_SEND_TIMEOUT) as scope:
            try:
                await self._broker.send(cancellation, exchange=self._exchange)
            except KernelError:
                self.dropped += 1
        self.dropped += scope.cancelled_caught


@final
@attrs.define(eq=False, repr=False)
class Hearer:
    """Hears which requests nobody waits for any more, and revokes those that are in flight or come later."""

    _early: dict[str, None] = attrs.field(factory=dict[str, None], init=False)
    """Ids of requests that were not there, the oldest first."""
    _intake: Intake | None = attrs.field(default=None, init=False)

    async def submit(self, intake: Intake, delivery: Delivery) -> None:
        """Submit a delivery; if it is a request, it can be revoked, and is at once if it was cancelled before.

        Cancellation: As `Intake.submit`.
        """
        name = delivery.envelope.correlation_id if delivery.envelope.reply_to else ""
        self._intake = intake
        await intake.submit(delivery, revocable_as=name)
        if name in self._early:
            del self._early[name]
            intake.revoke(name)

    def hear(self, name: str) -> None:
        """Revoke the request with a correlation id, or remember it."""
        if not 0 < len(name) <= _MAX_ID or (self._intake is not None and self._intake.revoke(name)):
            return
        self._early[name] = None
        if len(self._early) > MAX_EARLY:
            del self._early[next(iter(self._early))]

    async def listen(
        self,
        broker: Broker,
        make_wish: Callable[[], CancellationQueue],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Hear what comes to a queue of its own, and to a new one each time that a connection is lost.

        Raises:
            UnavailableError: if the broker breaks.

        Cancellation: Is a checkpoint. The queue goes away.
        """
        is_first = True
        while True:
            with suppress(SubscriptionLostError):
                wish = make_wish()
                await broker.declare(wish.topology())
                async with broker.subscribe(Subscription(queue=wish.name, prefetch=_PREFETCH)) as deliveries:
                    if is_first:
                        task_status.started()
                    is_first = False
                    await self._hear_all(deliveries)
                    return

    async def _hear_all(self, deliveries: AsyncIterator[Delivery]) -> None:
        async for delivery in deliveries:
            self.hear(delivery.envelope.correlation_id)
            if not delivery.settle_nowait(Ack()):
                await delivery.settle(Ack())


@final
@attrs.frozen(kw_only=True, repr=False)
class CancellationQueue:
    """The queue of one callee: it gets the cancellations of the subjects that it handles."""

    name: str
    exchange: str
    patterns: Iterable[str]

    def topology(self) -> Topology:
        """Return what must exist, besides the exchange."""
        queue = Queue(name=self.name, durable=False, exclusive=True)
        bindings = [Binding(queue=self.name, exchange=self.exchange, pattern=pattern) for pattern in self.patterns]
        return Topology(queues=[queue], bindings=bindings)
