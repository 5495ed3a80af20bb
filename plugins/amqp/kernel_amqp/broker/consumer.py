"""What takes from a queue: one for each subscription, with a channel of its own.

It is long, since what a delivery may come to, and what its channel may, meet in every one of its methods.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from functools import partial
from typing import Final, final

import attrs
import trio
from typing_extensions import override

from kernel import Ack, DeadLetter, Outcome, Pace, Retry, Return
from kernel.abc import Delivery, Queue, Settlements, Spared, Subscription
from kernel.errors import KernelError, SubscriptionLostError, UnavailableError, UnknownOutcomeError

from .._errors import ChannelClosedError, ConsumerCancelledError, LinkLostError, UnansweredError
from ..core import Delivered, TooLarge
from ..link.receipts import Receipt
from ..link.session import Held
from .crashes import crashes_of, is_noted, is_suspect, key_of, next_count
from .delays import bounded, in_time
from .delivery import AmqpDelivery, Desk
from .post import Post, is_hopeless
from .settlement import PATIENCE, AmqpSettlement, Patience
from .shelf import OrderedShelf, PlainShelf, Shelf
from .streams import Progress, is_wanted, place_of, stream_arguments
from .topology import has_dead_exchange, options_of

_IDLE_WAIT: Final = 60.0
"""Seconds in which what was in hand when a connection broke has to end; after that, the dispatcher has to."""
_BACKOFF_INITIAL: Final = 0.25
_BACKOFF_MAX: Final = 10.0
"""Seconds between two tries to send an outcome, at first and at most."""


@final
@attrs.define(eq=False, repr=False)
class Consumer(AsyncIterator[Delivery], Desk):
    """Takes from one queue; settles what it brought, as long as its channel is open.

    The channel stays open until the subscription has been left and everything that was taken is settled. An ordered
    queue keeps its consumer until then: no other consumer gets a key that is under way here.

    An outcome that cannot be sent at once is kept, and sent as soon as it can be, as long as the channel is open: what
    was handled is not delivered again for that. One that never can be sent has the broker put the message aside.
    """

    _wish: Subscription
    _spec: Queue | None
    """How the queue was declared; None if somebody else did."""
    _post: Post
    _pace: Pace
    _start: Callable[[Callable[[], Awaitable[None]]], None]
    """Starts a task that lives as long as the driver."""
    _spared: Spared
    _service: str
    _stream: Progress | None = None
    """How far it has come, of a stream."""
    _settlements: Settlements = attrs.field(factory=Settlements)
    _patience: Patience = attrs.field(init=False)
    _shelf: Shelf = attrs.field(init=False)
    _ordered: OrderedShelf | None = attrs.field(default=None, init=False)
    """What waits for its retry does so in this process: of an ordered queue, and of a stream."""
    _held: Held | None = attrs.field(default=None, init=False)
    _error: Callable[[], UnavailableError] | None = attrs.field(default=None, init=False)
    """Why nothing comes any more."""
    _can_renew: bool = attrs.field(default=False, init=False)
    """Whether to subscribe again, on the next connection, mends what has ended."""
    _left: bool = attrs.field(default=False, init=False)
    _unsettled: int = attrs.field(default=0, init=False)
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _taken: set[AmqpDelivery] = attrs.field(factory=set[AmqpDelivery], init=False)
    """Handed out and not settled; no more than `prefetch`."""
    _telling: set[AmqpSettlement] = attrs.field(factory=set[AmqpSettlement], init=False)
    """Outcomes that are being sent in tasks of their own; no more than were delivered and not settled."""

    def __attrs_post_init__(self) -> None:
        self._patience = Patience(self._start)
        if self._spec is not None and (self._spec.partition_by or self._stream is not None):
            self._ordered = OrderedShelf(self._spec.partition_by, self._wish.prefetch)
        self._shelf = self._ordered or PlainShelf()

    @property
    def tag(self) -> str:
        """What it is called on its channel, which has no other."""
        said = options_of(self._spec).consumer_tag if self._spec is not None else ""
        return said or self._service

    @property
    def arguments(self) -> Mapping[str, object]:
        """What the broker is told of it. To ask again goes on, of a stream, where what is not done begins."""
        if self._stream is not None:
            return stream_arguments(self._stream.options, self._stream.begin())
        priority = options_of(self._spec).consumer_priority if self._spec is not None else None
        return {} if priority is None else {"x-priority": priority}

    @property
    def prefetch(self) -> int:
        """What the broker may send ahead."""
        ahead = options_of(self._spec).lookahead if self._ordered and self._spec else 0
        return min(self._wish.prefetch + ahead, 65535)

    # --- what the reading task calls: it only notes and wakes

    def start(self, held: Held) -> None:
        """Take note of the channel that it consumes on."""
        self._held = held

    def take_in(self, event: Delivered | TooLarge) -> None:
        """Take what the broker brings."""
        if isinstance(event, TooLarge):
            self._refuse(event)
            return
        delivery = AmqpDelivery(event, self)
        if self._stream is not None and not self._is_next(delivery, self._stream):
            return
        if event.redelivered and self._is_suspect(event):
            self._unsettled += 1
            self._taken.add(delivery)
            settlement = AmqpSettlement()
            self._go_on(settlement, partial(self._note, delivery, settlement))
            return
        self._shelf.put(delivery)
        if self._waiting:
            self._waiting.unpark()

    def cancelled(self, _: str) -> None:
        """Take note that the broker has cancelled the consumer."""
        self.end(lambda: ConsumerCancelledError(self._wish.queue))

    def lose(self, error: ChannelClosedError | LinkLostError) -> None:
        """Take note that the channel is gone."""
        known = (*self._shelf.clear(), *self._taken)
        for delivery in known:
            self._spared.add(self._wish.queue, key_of(delivery.event))
        if isinstance(error, LinkLostError):
            self._spared.lose(self._wish.queue, self.prefetch - len(known))
        for settlement in self._telling:
            settlement.scope.cancel()
        text = f'the channel that consumed from queue "{self._wish.queue}" is gone: {error}'
        self._can_renew = isinstance(error, LinkLostError) and not self._is_exclusive()
        self.end(lambda: UnavailableError(text))

    def end(self, error: Callable[[], UnavailableError]) -> None:
        """Hand out nothing any more, and say so to whoever waits."""
        self._error = self._error or error
        self._waiting.unpark_all()

    # --- what the dispatcher calls

    @override
    async def __anext__(self) -> Delivery:
        while True:
            if self._error is not None or self._left:
                raise await self._end_of_all()
            delivery = self._shelf.take()
            if delivery is not None:
                self._unsettled += 1
                self._taken.add(delivery)
                return delivery  # noqa: ASYNC910  no more than `prefetch` are at hand: it waits soon enough
            with trio.move_on_at(self._shelf.due):
                await self._waiting.park()

    async def _end_of_all(self) -> UnavailableError:
        """Return why nothing comes any more.

        What was handed out comes again as soon as somebody subscribes, so that is not yet the time for it.
        """
        reason = self._reason()
        if not self._can_renew or self._left:
            return reason  # noqa: ASYNC910  whoever is told goes on to wait
        with trio.move_on_after(_IDLE_WAIT):
            while self._unsettled:
                await self._waiting.park()
        return reason if self._unsettled else SubscriptionLostError(str(reason))  # noqa: ASYNC910  whoever is told goes on to wait

    async def leave(self) -> None:  # noqa: ASYNC910  it may be that the channel is gone
        """Stop the source and give back what was not taken.

        Cancellation: Is a checkpoint. If cancelled, the broker may still bring something, which is not handed out.
        """
        self._left = True
        self._waiting.unpark_all()
        assert self._held is not None
        if self._ordered is not None and self._stream is None and self._unsettled:
            await trio.lowlevel.checkpoint()
            return
        in_hand = self._unsettled
        try:
            await self._held.channel.cancel_consumer(self.tag)
        except (ChannelClosedError, LinkLostError):
            pass
        finally:
            self._give_back()  # what a closing channel takes along counts as tried at quorum queues
            if not self._unsettled:
                self._held.release()
        if not in_hand:
            await self._held.wait_closed()

    # --- what those who settle call

    @override
    def settle_nowait(self, delivery: AmqpDelivery, outcome: Outcome) -> bool:
        if isinstance(outcome, Ack):  # as nearly every outcome is: to match the patterns takes longer
            if outcome.reply is None:
                self._ack(delivery)
            return outcome.reply is None
        match outcome:
            case Return() if self._ordered is not None:
                self._keep(delivery, attempts=0, after=0.0)
            case Return() if is_noted(delivery.event):
                return False  # that it comes again must not be counted
            case Return():
                self._nack(delivery, requeue=True)
            case Retry(after) if self._ordered is not None:
                self._keep(delivery, attempts=1, after=bounded(after))
            case DeadLetter(reason) if self._spec is None or not self._spec.dead_letters:
                self._discard(delivery, reason)
            case _:
                return False
        return True

    @override
    async def settle(self, delivery: AmqpDelivery, outcome: Outcome) -> None:
        await self._pace.step()
        if isinstance(outcome, Retry):
            outcome = in_time(outcome, deadline=delivery.envelope.deadline, now=trio.current_time())
        if delivery.settle_nowait(outcome):
            return
        delivery.settled = True
        self._check(delivery)
        is_over, settlement = False, AmqpSettlement()
        try:
            if isinstance(outcome, Ack) and self._post.outbox.takes_at_once(self._wish.reply_exchange):
                settlement.patience = self._patience
                is_over = await self._tell(delivery, outcome, settlement)
            else:
                with trio.move_on_after(PATIENCE):
                    is_over = await self._tell(delivery, outcome, settlement)
        except trio.Cancelled:
            self._go_on(settlement, partial(self._tell_later, delivery, outcome, settlement))
            raise
        if not is_over:
            self._go_on(settlement, partial(self._tell_later, delivery, outcome, settlement))

    def _go_on(self, settlement: AmqpSettlement, work: Callable[[], Awaitable[None]]) -> None:
        """Go on with a settlement in a task of its own; a driver that ends before that begins waits for it as well."""
        self._settlements.expect(settlement)
        self._telling.add(settlement)
        self._start(work)

    async def _tell_later(self, delivery: AmqpDelivery, outcome: Outcome, settlement: AmqpSettlement) -> None:
        """Send an outcome as soon as that is possible, or until the channel is gone."""
        with self._going_on(delivery, settlement):
            await self._tell_again(delivery, outcome, settlement)

    @contextlib.contextmanager
    def _going_on(self, delivery: AmqpDelivery, settlement: AmqpSettlement) -> Generator[None]:
        """Be the task that goes on with a settlement, for as long as the channel is there that brought the delivery."""
        try:
            with self._settlements.running(settlement):
                yield
        finally:
            self._telling.discard(settlement)
        if settlement.scope.cancelled_caught:
            self._end(delivery)

    async def _tell_again(  # noqa: ASYNC910  the channel may be gone
        self, delivery: AmqpDelivery, outcome: Outcome, settlement: AmqpSettlement
    ) -> None:
        """Send an outcome again and again; nothing of which the broker has, or may still take, what was sent before."""
        wait, settlement.is_kept, settlement.patience = _BACKOFF_INITIAL, True, None
        with contextlib.suppress(UnknownOutcomeError):  # the channel is gone
            if await settlement.is_taken():
                self._ack(delivery)
                return
            while self._held is not None and self._held.channel.closed is None:
                await trio.sleep(wait * random.uniform(0.5, 1.0))
                if await self._tell(delivery, outcome, settlement):
                    return
                wait = min(2 * wait, _BACKOFF_MAX)
            self._check(delivery)

    async def _tell(self, delivery: AmqpDelivery, outcome: Outcome, settlement: AmqpSettlement) -> bool:
        """Send an outcome and be done with the delivery; return False if that has to be tried again.

        Raises:
            UnknownOutcomeError: if the channel is gone.
        """
        settlement.receipt = None
        try:
            await self._send(delivery, outcome, settlement)
        except UnansweredError:
            return False  # noqa: ASYNC910  as below
        except Exception as error:  # noqa: BLE001  whatever it is, the message must not be handled again for it
            settlement.receipt = None
            if not is_hopeless(error):
                self._post.hold(delivery.envelope, queue=self._wish.queue, error=error)
                return False  # noqa: ASYNC910  it comes from the broker
            if isinstance(outcome, Return):
                self._nack(delivery, requeue=True)
            else:
                self._give_up(delivery, outcome, error)
        else:
            self._ack(delivery)
        return True  # noqa: ASYNC910  whoever is told goes on to wait

    def _give_up(self, delivery: AmqpDelivery, outcome: Outcome, error: Exception) -> None:
        """Have the broker put aside what we cannot; it needs neither our headers nor our permissions."""
        reason = outcome.reason if isinstance(outcome, DeadLetter) else "its retry cannot be sent"
        self._post.surrender(
            delivery.envelope, queue=self._wish.queue, reason=reason, error=error, is_lost=self._is_lost()
        )
        self._nack(delivery, requeue=False)

    async def _send(self, delivery: AmqpDelivery, outcome: Outcome, settlement: AmqpSettlement) -> None:
        """Send what an outcome needs before the delivery is acknowledged."""
        queue, on_written, once = self._wish.queue, settlement.written, settlement.patience is not None
        match outcome:
            case Ack(reply) if reply is not None:
                await self._post.reply(reply, exchange=self._wish.reply_exchange, on_written=on_written, once=once)
            case Return():
                crashes = crashes_of(delivery.event.properties.headers or {})
                await self._post.note(delivery, queue=queue, crashes=crashes, on_written=on_written)
            case Retry(after):
                await self._post.again(delivery, queue=queue, after=after, spec=self._spec, on_written=on_written)
            case DeadLetter(reason) if self._spec is not None:
                grave = self._spec.dead_letters
                await self._post.bury(delivery, queue=queue, grave=grave, reason=reason, on_written=on_written)
            case _:
                raise AssertionError(f"{outcome} takes no waiting")

    def _ack(self, delivery: AmqpDelivery) -> None:
        delivery.settled = True
        self._note_done(delivery)
        assert self._held is not None
        try:
            self._held.channel.ack(delivery.event.delivery_tag)
        except (ChannelClosedError, LinkLostError) as error:
            if self._stream is None:  # of which nothing comes again that is done
                raise self._too_late(delivery) from error
        finally:
            self._end(delivery)

    def _nack(self, delivery: AmqpDelivery, *, requeue: bool) -> None:
        delivery.settled = True
        if not requeue:
            self._note_done(delivery)
        if requeue:
            self._spared.add(self._wish.queue, key_of(delivery.event))
        assert self._held is not None
        try:
            self._held.channel.nack(delivery.event.delivery_tag, requeue=requeue)
        except (ChannelClosedError, LinkLostError) as error:
            raise self._too_late(delivery) from error
        finally:
            self._end(delivery)

    def _keep(self, delivery: AmqpDelivery, *, attempts: int, after: float) -> None:
        """Keep a delivery of an ordered queue, unacknowledged, until it is taken again."""
        delivery.settled = True
        assert self._ordered is not None
        if attempts and self._stream is not None and (place := place_of(delivery.event)) is not None:
            self._stream.tried(place)
        self._check(delivery)
        self._taken.discard(delivery)
        self._ordered.put_back(delivery.next(attempts=attempts), after=after)
        self._end_one()

    def _discard(self, delivery: AmqpDelivery, reason: str) -> None:
        if self._is_lost():
            self._post.drop(delivery.envelope, queue=self._wish.queue, reason=reason)
        self._nack(delivery, requeue=False)

    def _end(self, delivery: AmqpDelivery) -> None:
        self._taken.discard(delivery)
        if self._ordered is not None:
            self._ordered.release(delivery)
        self._end_one()

    def _end_one(self) -> None:
        self._unsettled -= 1
        if self._ordered is not None or self._can_renew:
            self._waiting.unpark_all()
        if self._left and not self._unsettled and self._held is not None:
            self._held.release()

    def _give_back(self) -> None:
        assert self._held is not None
        with contextlib.suppress(ChannelClosedError, LinkLostError):
            for delivery in self._shelf.clear():
                if self._ordered is None and is_noted(delivery.event):
                    self._unsettled += 1
                    settlement = AmqpSettlement()
                    self._go_on(settlement, partial(self._return_noted, delivery, settlement))
                    continue
                self._spared.add(self._wish.queue, key_of(delivery.event))
                self._held.channel.nack(delivery.event.delivery_tag, requeue=True)

    def _is_next(self, delivery: AmqpDelivery, stream: Progress) -> bool:
        """Whether a message of a stream is to be handled; one that is not makes room for the next."""
        event = delivery.event
        assert self._held is not None
        place = place_of(event)
        if place is None:
            return True
        if not is_wanted(event.properties.headers or {}, stream.options):
            stream.skip(place)
        elif stream.take_in(place):
            delivery.again = stream.tries(place)
            return True
        self._held.channel.ack(event.delivery_tag)
        return False

    def _note_done(self, delivery: AmqpDelivery) -> None:
        """Take note that a message of a stream is done, whether or not the broker still hears of it."""
        if self._stream is not None and (place := place_of(delivery.event)) is not None:
            self._stream.done(place)

    def _is_suspect(self, event: Delivered) -> bool:
        """Whether the process that had a message before may have died with it, and nobody counts that."""
        can_note = self._ordered is None and not self._is_exclusive()
        return can_note and is_suspect(event) and not self._spared.take(self._wish.queue, key_of(event))

    async def _note(  # noqa: ASYNC910  the channel may be gone
        self, delivery: AmqpDelivery, settlement: AmqpSettlement
    ) -> None:
        """Have a message come again with a note that counts; hand it out as it is where that cannot be.

        Once the broker may have the copy, its confirm is waited for however long it takes: who handed the message out
        as well would have it handled twice.
        """
        with self._going_on(delivery, settlement), contextlib.suppress(UnknownOutcomeError):
            if await self._send_note(delivery, settlement):
                self._ack(delivery)
            elif self._left or self._error is not None:
                self._nack(delivery, requeue=True)
            else:
                self._unsettled -= 1
                self._taken.discard(delivery)
                self._shelf.put(delivery)
                self._waiting.unpark_all()

    async def _send_note(self, delivery: AmqpDelivery, settlement: AmqpSettlement) -> bool:
        """Send the copy with a note; return whether the broker has it."""
        with trio.move_on_after(PATIENCE) as patience:

            def written(receipt: Receipt) -> None:
                settlement.written(receipt)
                patience.deadline = math.inf

            try:
                await self._post.note(
                    delivery, queue=self._wish.queue, crashes=next_count(delivery.event), on_written=written
                )
            except (KernelError, ValueError) as error:
                self._post.hold(delivery.envelope, queue=self._wish.queue, error=error)
            else:
                return True
        return False  # noqa: ASYNC910  it comes from the broker

    async def _return_noted(  # noqa: ASYNC910  the channel may be gone
        self, delivery: AmqpDelivery, settlement: AmqpSettlement
    ) -> None:
        with self._going_on(delivery, settlement), contextlib.suppress(UnknownOutcomeError):
            if not await self._tell(delivery, Return(), settlement):
                await self._tell_again(delivery, Return(), settlement)

    def _refuse(self, event: TooLarge) -> None:
        """Put aside what is too large to be read; the broker does it, with the bytes that we do not have."""
        assert self._held is not None
        self._held.channel.nack(event.delivery_tag, requeue=False)
        self._post.refuse(event, queue=self._wish.queue, is_lost=self._is_lost())

    def _is_lost(self) -> bool:
        """Whether what is rejected goes nowhere; of a queue that somebody else declared it is not known."""
        return self._spec is not None and not has_dead_exchange(self._spec)

    def _is_exclusive(self) -> bool:
        """Whether the queue has gone away with its connection."""
        return self._spec is not None and (self._spec.exclusive or options_of(self._spec).exclusive)

    def _check(self, delivery: AmqpDelivery) -> None:
        assert self._held is not None
        if self._held.channel.closed is not None:
            self._end(delivery)
            raise self._too_late(delivery)

    def _reason(self) -> UnavailableError:
        if self._error is None:
            return UnavailableError(f'nobody consumes from queue "{self._wish.queue}" here any more')
        return self._error()

    def _too_late(self, delivery: AmqpDelivery) -> UnknownOutcomeError:
        return UnknownOutcomeError(
            f"delivery {delivery.envelope.id} outlived its channel: the broker has delivered it again, or will"
        )
