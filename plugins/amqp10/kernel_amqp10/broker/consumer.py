"""What takes from a queue: one for each subscription, with a session of its own for each address.

It is long, since what a delivery may come to, and what its link may, meet in every one of its methods.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, final

import attrs
import trio
from typing_extensions import override

from kernel import Ack, DeadLetter, Outcome, Pace, Retry, Return
from kernel.abc import CrashNote, Delivery, Queue, Settlements, Spared, Subscription
from kernel.errors import ConflictError, KernelError, SubscriptionLostError, UnavailableError, UnknownOutcomeError

from .._addresses import Addresses
from .._errors import EndClosedError, LinkLostError
from ..link.engine import Engine
from ..link.receiver import Arrived, ReceiverLink
from ..link.sender import OnWritten, Sent
from .crashes import next_note
from .delivery import Amqp10Delivery, Desk
from .post import Post, is_hopeless
from .reading import Reader
from .settlement import Amqp10Settlement

_PATIENCE: Final = 4.0
"""Seconds that whoever settles waits until an outcome has been sent; the kernel waits a second longer."""
_IDLE_WAIT: Final = 60.0
"""Seconds in which what was in hand when a connection broke has to end; after that, the dispatcher has to."""
_BACKOFF_INITIAL: Final = 0.25
_BACKOFF_MAX: Final = 10.0
"""Seconds between two tries to send an outcome, at first and at most."""


@final
@attrs.define(eq=False, repr=False)
class Consumer(AsyncIterator[Delivery], Desk):
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
    _telling: dict[Amqp10Settlement, ReceiverLink] = attrs.field(
        factory=dict[Amqp10Settlement, ReceiverLink], init=False
    )
    """What is being sent in tasks of their own, with the link that brought the delivery."""
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
        for settlement, link in self._telling.items():
            if link.error is not None:
                settlement.scope.cancel()
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
        self._go_on(self._note, delivery, Amqp10Settlement())
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
        self._go_on(self._return_noted, delivery, Amqp10Settlement())

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
        self._check(delivery)
        is_over, settlement = False, Amqp10Settlement()
        try:
            with trio.move_on_after(_PATIENCE):
                is_over = await self._tell(delivery, outcome, settlement)
        except trio.Cancelled:
            self._go_on(partial(self._tell_later, outcome=outcome), delivery, settlement)
            raise
        if not is_over:
            self._go_on(partial(self._tell_later, outcome=outcome), delivery, settlement)

    def _go_on(
        self,
        task: Callable[[Amqp10Delivery, Amqp10Settlement], Awaitable[None]],
        delivery: Amqp10Delivery,
        settlement: Amqp10Settlement,
    ) -> None:
        """Start a task for a delivery that has not yet been settled; a driver that ends waits for it from here on."""
        self._settlements.expect(settlement)
        self._telling[settlement] = delivery.arrived.link
        self._start(partial(task, delivery, settlement))

    async def _tell_later(self, delivery: Amqp10Delivery, settlement: Amqp10Settlement, *, outcome: Outcome) -> None:
        """Send an outcome as soon as that is possible, or until the link is gone."""
        with self._going_on(delivery, settlement):
            await self._tell_again(delivery, outcome, settlement)

    @contextmanager
    def _going_on(self, delivery: Amqp10Delivery, settlement: Amqp10Settlement) -> Generator[None]:
        """Go on with an settlement in a task of its own, for as long as the link is there that brought the delivery."""
        try:
            with self._settlements.running(settlement):
                yield
        finally:
            del self._telling[settlement]
        if settlement.scope.cancelled_caught:
            self._in_hand.discard(delivery)
            self._end_one()

    async def _tell_again(  # noqa: ASYNC910  the link may be gone
        self, delivery: Amqp10Delivery, outcome: Outcome, settlement: Amqp10Settlement
    ) -> None:
        """Send an outcome again and again; nothing of which the broker has, or may still take, what was sent before."""
        wait, settlement.is_kept = _BACKOFF_INITIAL, True
        with suppress(UnknownOutcomeError):  # the link is gone
            if await settlement.is_taken():
                self._say(delivery, delivery.arrived.link.accepted)
                return
            while delivery.arrived.link.error is None:
                await trio.sleep(wait * random.uniform(0.5, 1.0))
                if await self._tell(delivery, outcome, settlement):
                    return
                wait = min(2 * wait, _BACKOFF_MAX)
            self._check(delivery)

    async def _tell(self, delivery: Amqp10Delivery, outcome: Outcome, settlement: Amqp10Settlement) -> bool:
        """Send an outcome and be done with the delivery; return False if that has to be tried again.

        Raises:
            UnknownOutcomeError: if the link is gone.
        """
        link, settlement.receipt = delivery.arrived.link, None
        try:
            await self._send(delivery, outcome, settlement.written)
        except Exception as error:  # noqa: BLE001  whatever it is, the message must not be handled again for it
            settlement.receipt = None
            await trio.lowlevel.checkpoint()
            if not is_hopeless(error):
                self._post.hold(delivery.envelope, queue=self._wish.queue, error=error)
                return False
            if isinstance(outcome, Return):
                self._say(delivery, link.released)
                return True
            reason = outcome.reason if isinstance(outcome, DeadLetter) else f"its outcome cannot be sent: {error}"
            self._post.drop(delivery.envelope, queue=self._wish.queue, reason=reason)
            self._say(delivery, link.rejected)
        else:
            self._say(delivery, link.accepted)
        return True

    async def _send(self, delivery: Amqp10Delivery, outcome: Outcome, on_written: OnWritten) -> None:
        """Send what an outcome needs before the delivery is accepted."""
        envelope, queue, attempt = delivery.envelope, self._wish.queue, delivery.attempt
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

    async def _note(self, delivery: Amqp10Delivery, settlement: Amqp10Settlement) -> None:  # noqa: ASYNC910  the link may be gone
        """Have a message come again with a note that counts; hand it out as it is where that cannot be.

        Once the broker may have the copy, its answer is waited for however long it takes: who handed the message out as
        well would have it handled twice.
        """
        link = delivery.arrived.link
        with self._going_on(delivery, settlement), suppress(UnknownOutcomeError):
            if await self._is_noted(delivery, settlement):
                self._say(delivery, link.accepted)
            elif self._left or self._error is not None:
                self._spare(delivery)
                self._say(delivery, link.released)
            else:
                self._unsettled -= 1
                self._in_hand.discard(delivery)
                delivery.settled = False
                self._ready.append(delivery)
                self._waiting.unpark_all()

    async def _is_noted(self, delivery: Amqp10Delivery, settlement: Amqp10Settlement) -> bool:
        """Send the copy with a note; return whether the broker has it."""
        with trio.move_on_after(_PATIENCE) as patience:

            def written(sent: Sent) -> None:
                settlement.written(sent)
                patience.deadline = math.inf

            try:
                await self._send_note(delivery, next_note(delivery.letter.note), written)
            except (KernelError, ValueError) as error:
                self._post.hold(delivery.envelope, queue=self._wish.queue, error=error)
            else:
                return True
        return False  # noqa: ASYNC910  it comes from the broker

    async def _send_note(self, delivery: Amqp10Delivery, note: CrashNote, on_written: OnWritten) -> None:
        await self._post.note(
            delivery.envelope,
            queue=self._wish.queue,
            attempts=delivery.letter.counted,
            note=note,
            on_written=on_written,
        )

    async def _return_noted(self, delivery: Amqp10Delivery, settlement: Amqp10Settlement) -> None:  # noqa: ASYNC910  the link may be gone
        with self._going_on(delivery, settlement), suppress(UnknownOutcomeError):
            if not await self._tell(delivery, Return(), settlement):
                await self._tell_again(delivery, Return(), settlement)

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

    def _check(self, delivery: Amqp10Delivery) -> None:
        if delivery.arrived.link.error is not None:
            self._in_hand.discard(delivery)
            self._end_one()
            raise self._too_late(delivery)

    def _too_late(self, delivery: Amqp10Delivery) -> UnknownOutcomeError:
        return UnknownOutcomeError(
            f'message {delivery.envelope.id} from queue "{self._wish.queue}" will be delivered again: its link is gone'
        )

    def _end_one(self) -> None:
        self._unsettled -= 1
        self._waiting.unpark_all()
        if self._left and not self._unsettled:
            self._close()
