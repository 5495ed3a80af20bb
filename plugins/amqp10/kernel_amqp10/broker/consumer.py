"""What takes from a queue: one for each subscription, with a session of its own for each address.

It is long, since what a delivery may come to, and what its link may, meet in every one of its methods.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, final

import attrs
import trio
from typing_extensions import override

from kernel import Ack, DeadLetter, Outcome, Pace, Retry, Return
from kernel.abc import CrashNote, Delivery, Queue, Settlements, Settler, Settling, Spared, Subscription
from kernel.errors import ConflictError, SubscriptionLostError, UnavailableError, UnknownOutcomeError

from .._addresses import Addresses
from .._errors import EndClosedError, LinkLostError
from ..link.engine import Engine
from ..link.receiver import Arrived, ReceiverLink
from ..link.sender import OnWritten
from .crashes import next_note
from .delivery import Amqp10Delivery, Desk
from .post import Post, is_hopeless
from .reading import Reader
from .settlement import Amqp10Settlement

_IDLE_WAIT: Final = 60.0
"""Seconds in which what was in hand when a connection broke has to end; after that, the dispatcher has to."""


@final
@attrs.define(eq=False, repr=False)
class Consumer(AsyncIterator[Delivery], Desk, Settler[Amqp10Delivery, Amqp10Settlement]):
    """Takes from one queue; settles what it brought, as long as its links are open.

    They stay open until the subscription has been left and everything that was taken is settled. An outcome that cannot
    be sent at once is kept, and sent as soon as it can be: what was handled is not delivered again for that. One that
    never can be sent has the broker put the message aside.
    """

    _wish: Subscription
    _spec: Queue | None
    """How the queue was declared; None if somebody else did."""
    _addresses: Addresses
    _post: Post
    _engine: Engine
    _start: Callable[[Callable[[], Awaitable[None]]], None]
    """Starts a task that lives as long as the driver."""
    _spared: Spared
    _settlements: Settlements
    _reader: Reader = attrs.field(init=False)
    _pace: Pace = attrs.field(factory=Pace, init=False)
    _links: list[ReceiverLink] = attrs.field(factory=list[ReceiverLink], init=False)
    _shelf: deque[Arrived] = attrs.field(factory=deque[Arrived], init=False)
    _ready: deque[Amqp10Delivery] = attrs.field(factory=deque[Amqp10Delivery], init=False)
    """What was read and goes out before all that is on the shelf."""
    _in_hand: set[Amqp10Delivery] = attrs.field(factory=set[Amqp10Delivery], init=False)
    """Read and not settled; no more than `prefetch`."""
    _settling: Settling[Amqp10Delivery, Amqp10Settlement] = attrs.field(init=False)
    _error: Callable[[], UnavailableError] | None = attrs.field(default=None, init=False)
    """Why nothing comes any more."""
    _can_renew: bool = attrs.field(default=False, init=False)
    """Whether to subscribe again, on the next connection, mends what has ended."""
    _left: bool = attrs.field(default=False, init=False)
    _unsettled: int = attrs.field(default=0, init=False)
    """Handed out and not settled."""
    _owed: dict[ReceiverLink, int] = attrs.field(factory=dict[ReceiverLink, int], init=False)
    """Credit that was used up and may be given again."""
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def __attrs_post_init__(self) -> None:
        self._reader = Reader(self._engine.proton, self._addresses)
        self._settling = Settling(self, self._settlements, self._start, Amqp10Settlement)

    # --- its links

    async def open(self, sources: tuple[str, ...]) -> None:
        """Attach to the addresses of the queue, and have them send.

        Raises:
            ConflictError: if the broker does not let us consume there.
            LinkLostError: if the connection is gone.

        Cancellation: Is a checkpoint. If cancelled, the links are given up.
        """
        await trio.lowlevel.checkpoint()
        for source in sources:
            link = ReceiverLink(source, self._engine, self._take_in, self._lose, self._refuse_large)
            link.changed = self._wake
            link.flow(self._wish.prefetch)
            self._links.append(link)
        try:
            while any(not link.is_open and link.error is None for link in self._links):
                await self._waiting.park()
        except BaseException:
            self._close()
            raise
        if (error := next((link.error for link in self._links if link.error is not None), None)) is not None:
            self._close()
            if isinstance(error, EndClosedError):
                raise ConflictError(f'queue "{self._wish.queue}" cannot be consumed from: {error}')
            raise error.again(written=False)

    def _wake(self) -> None:
        self._waiting.unpark_all()

    def _take_in(self, arrived: Arrived) -> None:
        if self._left:
            self._give_back(arrived)
            return
        self._shelf.append(arrived)
        if self._waiting:
            self._waiting.unpark()

    def _refuse_large(self, size: int) -> None:
        self._post.warn(f'a message of {size} bytes in queue "{self._wish.queue}" is larger than `max_message_bytes`')

    def _lose(self, error: EndClosedError | LinkLostError) -> None:
        known = [*self._in_hand, *self._ready]
        for delivery in known:
            self._spare(delivery)
        if isinstance(error, LinkLostError):
            self._spared.lose(self._wish.queue, len(self._links) * self._wish.prefetch - len(known))
        self._shelf.clear()
        self._ready.clear()
        self._settling.lose()
        text = f'what consumed from queue "{self._wish.queue}" is gone: {error}'
        self._can_renew = isinstance(error, LinkLostError) and not self._is_exclusive()
        self.end(lambda: UnavailableError(text))

    def end(self, error: Callable[[], UnavailableError]) -> None:
        """Hand out nothing any more, and say so to whoever waits."""
        self._error = self._error or error
        self._waiting.unpark_all()

    def _close(self) -> None:
        for link in self._links:
            link.close()

    # --- what the dispatcher calls

    @override
    async def __anext__(self) -> Delivery:
        await self._pace.step()
        while True:
            if self._error is not None or self._left:
                raise await self._end_of_all()
            if (self._ready or self._shelf) and self._unsettled < self._wish.prefetch:
                delivery = self._ready.popleft() if self._ready else self._read(self._shelf.popleft())
                if delivery is not None:
                    self._unsettled += 1
                    self._in_hand.add(delivery)
                    return delivery
                continue
            await self._waiting.park()

    def _read(self, arrived: Arrived) -> Amqp10Delivery | None:
        """Return what arrived as a delivery; what cannot be read is rejected, and what is suspect comes again."""
        try:
            letter = self._reader.read(arrived.data, now=trio.current_time())
        except ValueError as error:
            self._post.warn(f'a message in queue "{self._wish.queue}" is rejected: {error}')
            arrived.link.settle(arrived, arrived.link.rejected)
            self._owe(arrived.link)
            return None
        delivery = Amqp10Delivery(arrived, letter, self)
        if not self._is_suspect(delivery):
            return delivery
        self._unsettled += 1
        self._in_hand.add(delivery)
        delivery.settled = True
        self._settling.note(delivery)
        return None

    async def _end_of_all(self) -> UnavailableError:
        """Return why nothing comes any more.

        What was handed out comes again as soon as somebody subscribes, so that is not yet the time for it.
        """
        reason = UnavailableError("the subscription was left") if self._error is None else self._error()
        if not self._can_renew or self._left:
            await trio.lowlevel.checkpoint()
            return reason
        with trio.move_on_after(_IDLE_WAIT):
            while self._unsettled:
                await self._waiting.park()
        await trio.lowlevel.checkpoint()
        return reason if self._unsettled else SubscriptionLostError(str(reason))

    async def leave(self) -> None:
        """Stop the source and give back what was not taken.

        Cancellation: Is a checkpoint. If cancelled, the broker may still bring something, which is given back.
        """
        self._left = True
        self._waiting.unpark_all()
        for link in self._links:
            link.flow(-link.credit)
        while self._ready or self._shelf:
            delivery = self._ready.popleft() if self._ready else self._read(self._shelf.popleft())
            if delivery is not None:
                self._give_back_read(delivery)
        if self._unsettled:
            await trio.lowlevel.checkpoint()
            return
        self._close()
        while any(not link.is_ended for link in self._links) and self._engine.over is None:
            await self._waiting.park()
        await trio.lowlevel.checkpoint()

    def _give_back_read(self, delivery: Amqp10Delivery) -> None:
        """Give back what nobody took."""
        if not self._must_copy(delivery):
            self._spare(delivery)
            self._give_back(delivery.arrived)
            return
        self._unsettled += 1
        self._in_hand.add(delivery)
        delivery.settled = True
        self._settling.give_back(delivery)

    def _give_back(self, arrived: Arrived) -> None:
        if arrived.link.error is None:
            arrived.link.settle(arrived, arrived.link.released)

    # --- what those who settle call

    @override
    def settle_nowait(self, delivery: Amqp10Delivery, outcome: Outcome) -> bool:
        link = delivery.arrived.link
        match outcome:
            case Ack(None):
                self._say(delivery, link.accepted)
            case Return() if self._must_copy(delivery):
                return False
            case Return():
                self._spare(delivery)
                self._say(delivery, link.released)
            case Retry(after) if after <= 0 and self._addresses.is_counting:
                self._say(delivery, link.modified, failed=True)
            case DeadLetter(reason) if self._spec is None or not self._spec.dead_letters:
                self._post.drop(delivery.envelope, queue=self._wish.queue, reason=reason)
                self._say(delivery, link.rejected)
            case _:
                return False
        return True

    @override
    async def settle(self, delivery: Amqp10Delivery, outcome: Outcome) -> None:
        await self._pace.step()
        if self.settle_nowait(delivery, outcome):
            return
        delivery.settled = True
        await self._settling.settle(delivery, outcome)

    # --- what sends an outcome calls

    @override
    def is_here(self, delivery: Amqp10Delivery) -> bool:
        return delivery.arrived.link.error is None

    @override
    def acknowledge(self, delivery: Amqp10Delivery, settlement: Amqp10Settlement) -> None:
        self._say(delivery, delivery.arrived.link.accepted)

    @override
    def give_up(self, delivery: Amqp10Delivery, outcome: Outcome, error: Exception) -> bool:
        if not is_hopeless(error):
            self._post.hold(delivery.envelope, queue=self._wish.queue, error=error)
            return False
        link = delivery.arrived.link
        if isinstance(outcome, Return):
            self._say(delivery, link.released)
            return True
        reason = outcome.reason if isinstance(outcome, DeadLetter) else f"its outcome cannot be sent: {error}"
        self._post.drop(delivery.envelope, queue=self._wish.queue, reason=reason)
        self._say(delivery, link.rejected)
        return True

    @override
    def put_back(self, delivery: Amqp10Delivery, error: Exception | None) -> None:
        if error is not None:
            self._post.hold(delivery.envelope, queue=self._wish.queue, error=error)
        if self._left or self._error is not None:
            self._spare(delivery)
            self._say(delivery, delivery.arrived.link.released)
            return
        self._unsettled -= 1
        self._in_hand.discard(delivery)
        delivery.settled = False
        self._ready.append(delivery)
        self._waiting.unpark_all()

    @override
    def forget(self, delivery: Amqp10Delivery) -> UnknownOutcomeError:
        self._in_hand.discard(delivery)
        self._end_one()
        return self._too_late(delivery)

    @override
    async def send(self, delivery: Amqp10Delivery, outcome: Outcome, settlement: Amqp10Settlement) -> None:
        envelope, queue, attempt = delivery.envelope, self._wish.queue, delivery.attempt
        on_written = settlement.written
        match outcome:
            case Ack(reply) if reply is not None:
                await self._post.reply(reply, exchange=self._wish.reply_exchange, on_written=on_written)
            case Return() if (note := delivery.letter.note) is not None:
                await self._send_note(delivery, note.returned(), on_written)
            case Retry(after):
                await self._post.again(envelope, queue=queue, attempts=attempt, after=after, on_written=on_written)
            case DeadLetter(reason) if self._spec is not None:
                grave = self._spec.dead_letters
                await self._post.bury(
                    envelope, queue=queue, grave=grave, reason=reason, attempts=attempt, on_written=on_written
                )
            case _:
                raise AssertionError(f"{outcome} takes no waiting")

    # --- attempts in which a process died

    def _is_suspect(self, delivery: Amqp10Delivery) -> bool:
        """Whether the process that had a message before may have died with it, and nobody counts that."""
        if self._left or self._is_exclusive() or not delivery.letter.is_uncounted:
            return False
        return not self._spared.take(self._wish.queue, delivery.envelope.id)

    def _must_copy(self, delivery: Amqp10Delivery) -> bool:
        """Whether to come again as it is would be counted, though it is given back in order."""
        return delivery.letter.note is not None and not self._is_exclusive()

    def _spare(self, delivery: Amqp10Delivery) -> None:
        """Take note that a delivery comes again and nobody has died with it."""
        self._spared.add(self._wish.queue, delivery.envelope.id)

    @override
    async def send_note(self, delivery: Amqp10Delivery, settlement: Amqp10Settlement) -> None:
        await self._send_note(delivery, next_note(delivery.letter.note), settlement.written)

    async def _send_note(self, delivery: Amqp10Delivery, note: CrashNote, on_written: OnWritten) -> None:
        await self._post.note(
            delivery.envelope,
            queue=self._wish.queue,
            attempts=delivery.letter.counted,
            note=note,
            on_written=on_written,
        )

    def _is_exclusive(self) -> bool:
        return self._spec is not None and self._spec.exclusive

    def _say(self, delivery: Amqp10Delivery, state: int, *, failed: bool = False) -> None:
        delivery.settled = True
        link = delivery.arrived.link
        try:
            link.settle(delivery.arrived, state, failed=failed)
        except (EndClosedError, LinkLostError) as error:
            raise self._too_late(delivery) from error
        finally:
            self._owe(link)
            self._in_hand.discard(delivery)
            self._end_one()

    def _owe(self, link: ReceiverLink) -> None:
        """Give credit again: now where none is left, and otherwise when it is worth a frame."""
        if self._left:
            return
        owed = self._owed.get(link, 0) + 1
        if owed * 4 < self._wish.prefetch and link.credit > 0:
            self._owed[link] = owed
            return
        self._owed[link] = 0
        link.flow(owed)

    def _too_late(self, delivery: Amqp10Delivery) -> UnknownOutcomeError:
        return UnknownOutcomeError(
            f'message {delivery.envelope.id} from queue "{self._wish.queue}" will be delivered again: its link is gone'
        )

    def _end_one(self) -> None:
        self._unsettled -= 1
        self._waiting.unpark_all()
        if self._left and not self._unsettled:
            self._close()
