"""What takes from a queue: one for each subscription, with a session of its own for each address."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final, final

import attrs
import trio
from typing_extensions import override

from kernel import Ack, DeadLetter, Outcome, Pace, Retry, Return
from kernel.abc import Delivery, Queue, Subscription
from kernel.errors import ConflictError, SubscriptionLostError, UnavailableError, UnknownOutcomeError

from .._addresses import Addresses
from .._errors import EndClosedError, LinkLostError
from ..link.engine import Engine
from ..link.receiver import Arrived, ReceiverLink
from .delivery import Amqp10Delivery, Desk
from .letters import read_letter
from .post import Post, is_hopeless

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
    _pace: Pace = attrs.field(factory=Pace, init=False)
    _links: list[ReceiverLink] = attrs.field(factory=list[ReceiverLink], init=False)
    _shelf: deque[Arrived] = attrs.field(factory=deque[Arrived], init=False)
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
        self._shelf.clear()
        text = f'what consumed from queue "{self._wish.queue}" is gone: {error}'
        exclusive = self._spec is not None and self._spec.exclusive
        self._can_renew = isinstance(error, LinkLostError) and not exclusive
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
            if self._shelf and self._unsettled < self._wish.prefetch:
                delivery = self._read(self._shelf.popleft())
                if delivery is not None:
                    self._unsettled += 1
                    return delivery
                continue
            await self._waiting.park()

    def _read(self, arrived: Arrived) -> Amqp10Delivery | None:
        """Return what arrived as a delivery; what cannot be read is rejected."""
        engine = self._engine
        try:
            letter = read_letter(engine.proton, self._addresses, arrived.data, now=trio.current_time())
        except ValueError as error:
            self._post.warn(f'a message in queue "{self._wish.queue}" is rejected: {error}')
            arrived.link.settle(arrived.delivery, arrived.link.rejected)
            self._owe(arrived.link)
            return None
        return Amqp10Delivery(arrived, letter, self)

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
        while self._shelf:
            self._give_back(self._shelf.popleft())
        if self._unsettled:
            await trio.lowlevel.checkpoint()
            return
        self._close()
        while any(not link.is_ended for link in self._links) and self._engine.over is None:
            await self._waiting.park()
        await trio.lowlevel.checkpoint()

    def _give_back(self, arrived: Arrived) -> None:
        if arrived.link.error is None:
            arrived.link.settle(arrived.delivery, arrived.link.released)

    # --- what those who settle call

    @override
    def settle_nowait(self, delivery: Amqp10Delivery, outcome: Outcome) -> bool:
        link = delivery.arrived.link
        match outcome:
            case Ack(None):
                self._say(delivery, link.accepted)
            case Return():
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
        is_over = False
        try:
            with trio.move_on_after(_PATIENCE):
                is_over = await self._tell(delivery, outcome)
        except trio.Cancelled:
            self._start(partial(self._tell_later, delivery, outcome))
            raise
        if not is_over:
            self._start(partial(self._tell_later, delivery, outcome))

    async def _tell_later(self, delivery: Amqp10Delivery, outcome: Outcome) -> None:
        """Send an outcome as soon as that is possible, or until the link is gone."""
        wait = _BACKOFF_INITIAL
        while delivery.arrived.link.error is None:
            await trio.sleep(wait * random.uniform(0.5, 1.0))
            try:
                with trio.move_on_after(_BACKOFF_MAX):
                    if await self._tell(delivery, outcome):
                        return
            except UnknownOutcomeError:
                return
            wait = min(2 * wait, _BACKOFF_MAX)
        self._end_one()
        await trio.lowlevel.checkpoint()

    async def _tell(self, delivery: Amqp10Delivery, outcome: Outcome) -> bool:
        """Send an outcome and be done with the delivery; return False if that has to be tried again.

        Raises:
            UnknownOutcomeError: if the link is gone.
        """
        link = delivery.arrived.link
        try:
            await self._send(delivery, outcome)
        except Exception as error:  # noqa: BLE001  whatever it is, the message must not be handled again for it
            await trio.lowlevel.checkpoint()
            if not is_hopeless(error):
                self._post.hold(delivery.envelope, queue=self._wish.queue, error=error)
                return False
            reason = outcome.reason if isinstance(outcome, DeadLetter) else f"its outcome cannot be sent: {error}"
            self._post.drop(delivery.envelope, queue=self._wish.queue, reason=reason)
            self._say(delivery, link.rejected)
        else:
            self._say(delivery, link.accepted)
        return True

    async def _send(self, delivery: Amqp10Delivery, outcome: Outcome) -> None:
        """Send what an outcome needs before the delivery is accepted."""
        envelope, queue = delivery.envelope, self._wish.queue
        match outcome:
            case Ack(reply) if reply is not None:
                await self._post.reply(reply, exchange=self._wish.reply_exchange)
            case Retry(after):
                await self._post.again(envelope, queue=queue, attempts=delivery.attempt, after=after)
            case DeadLetter(reason) if self._spec is not None:
                grave = self._spec.dead_letters
                await self._post.bury(envelope, queue=queue, grave=grave, reason=reason, attempts=delivery.attempt)
            case _:
                raise AssertionError(f"{outcome} takes no waiting")

    def _say(self, delivery: Amqp10Delivery, state: int, *, failed: bool = False) -> None:
        delivery.settled = True
        link = delivery.arrived.link
        try:
            link.settle(delivery.arrived.delivery, state, failed=failed)
        except (EndClosedError, LinkLostError) as error:
            raise self._too_late(delivery) from error
        finally:
            self._owe(link)
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
