"""What takes from a queue: one for each subscription, with a connection of its own.

Every mistake ends a connection of STOMP, so that of one consumer is nobody else's. It is long, since what a delivery may
come to, and what its connection may, meet in every one of its methods.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, final

import attrs
import trio
from typing_extensions import override

from kernel import Ack, DeadLetter, Outcome, Pace, Retry, Return
from kernel.abc import Delivery, Queue, Settlements, Settler, Settling, Spared
from kernel.errors import SubscriptionLostError, UnavailableError, UnknownOutcomeError

from .._errors import LinkError, LinkLostError
from ..core import Frame
from ..link.link import Link
from .crashes import is_noted, is_suspect, next_note, note_of
from .delivery import Desk, StompDelivery
from .dialect import Supply, Wish
from .letters import Letter
from .post import Post, is_hopeless
from .settlement import StompSettlement

_IDLE_WAIT: Final = 60.0
"""Seconds in which what was in hand when a connection broke has to end; after that, the dispatcher has to."""
_SLACK: Final = 10_000
"""Messages that a server may send beyond what was asked for, before its connection is ended; of an exclusive queue a
hundred come for each of its bindings."""


@final
@attrs.define(eq=False, repr=False)
class Consumer(AsyncIterator[Delivery], Desk, Settler[StompDelivery, StompSettlement]):
    """Takes from one queue; settles what it brought, as long as its connection is open.

    The connection stays open until the subscription has been left and everything that was taken is settled. An outcome
    that cannot be sent at once is kept, and sent as soon as it can be, as long as the connection is open.
    """

    _wish: Wish
    _supply: Supply
    _post: Post
    _pace: Pace
    _start: Callable[[Callable[[], Awaitable[None]]], None]
    """Starts a task that lives as long as the driver."""
    _release: Callable[[], None]
    """Has the connection closed."""
    _spared: Spared
    _settlements: Settlements
    prefetch: int
    """Deliveries that may be handed out and not settled."""
    reply_exchange: str = ""
    """Where answers are sent; empty for the queue that each names."""
    _link: Link | None = attrs.field(default=None, init=False)
    _shelf: deque[StompDelivery] = attrs.field(factory=deque[StompDelivery], init=False)
    """What has come and was not handed out."""
    _taken: set[StompDelivery] = attrs.field(factory=set[StompDelivery], init=False)
    """Handed out and not settled."""
    _error: Callable[[], UnavailableError] | None = attrs.field(default=None, init=False)
    """Why nothing comes any more."""
    _can_renew: bool = attrs.field(default=False, init=False)
    """Whether to subscribe again, on the next connection, mends what has ended."""
    _left: bool = attrs.field(default=False, init=False)
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _settling: Settling[StompDelivery, StompSettlement] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._settling = Settling(self, self._settlements, self._start, StompSettlement)

    @property
    def queue(self) -> str:
        """The name of the queue."""
        return self._wish.queue

    @property
    def spec(self) -> Queue | None:
        """How the queue was declared; None if somebody else did."""
        return self._wish.spec

    @property
    def link(self) -> Link:
        """The connection; only after `begin`."""
        assert self._link is not None
        return self._link

    def release(self) -> None:
        """Have the connection closed: the server then takes back what is not settled."""
        self._release()

    async def begin(self, link: Link) -> None:
        """Ask for messages on a connection of its own.

        Raises:
            LinkLostError: if the server refuses that, or the connection is gone.
        """
        self._link = link
        link.on_message, link.on_lost = self.take_in, self.lose
        await self._supply.begin(link)

    # --- what the reading task calls: it only notes and wakes

    def take_in(self, frame: Frame) -> None:
        """Take what the server brings."""
        if frame.headers.get("browser"):
            return
        if len(self._shelf) > self.prefetch + _SLACK:
            self.link.give_up(f"it brings far more than {self.prefetch} messages at a time")
        elif not self._supply.wants(frame):
            self._supply.ack(frame)
        elif frame.skipped or frame.flaw:
            self._supply.put_aside(frame)
            self._post.refuse(frame, queue=self._wish.queue)
        else:
            self._put(StompDelivery(frame, self))

    def _put(self, delivery: StompDelivery) -> None:
        if self._is_suspect(delivery.frame):
            self._taken.add(delivery)
            self._settling.note(delivery)
            return
        self._shelf.append(delivery)
        if self._waiting:
            self._waiting.unpark()

    def _is_suspect(self, frame: Frame) -> bool:
        """Whether the process that had a message before may have died with it, and nobody counts that."""
        if self._left or self._is_exclusive() or not is_suspect(frame.headers):
            return False
        return not self._spared.take(self._wish.queue, self._post.id_of(frame))

    def _spare(self, delivery: StompDelivery) -> None:
        """Take note that a delivery comes again and nobody has died with it."""
        self._spared.add(self._wish.queue, self._post.id_of(delivery.frame))

    def lose(self, error: LinkLostError) -> None:
        """Take note that the connection is gone."""
        known = (*self._shelf, *self._taken)
        for delivery in known:
            self._spare(delivery)
        if not self._left:
            self._spared.lose(self._wish.queue, self.prefetch - len(known))
        self._shelf.clear()
        self._settling.lose()
        self._can_renew = not self._is_exclusive()
        text = f'the connection that consumed from queue "{self._wish.queue}" is gone: {error}'
        self.end(lambda: UnavailableError(text))
        self._release()

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
            if self._shelf and len(self._taken) < self.prefetch:
                delivery = self._shelf.popleft()
                self._taken.add(delivery)
                return delivery  # noqa: ASYNC910  no more than `prefetch` are at hand: it waits soon enough
            await self._waiting.park()

    async def _end_of_all(self) -> UnavailableError:
        """Return why nothing comes any more.

        What was handed out comes again as soon as somebody subscribes, so that is not yet the time for it.
        """
        reason = self._reason()
        if not self._can_renew or self._left:
            return reason  # noqa: ASYNC910  whoever is told goes on to wait
        with trio.move_on_after(_IDLE_WAIT):
            while self._taken:
                await self._waiting.park()
        return reason if self._taken else SubscriptionLostError(str(reason))  # noqa: ASYNC910  whoever is told goes on to wait

    async def leave(self) -> None:  # noqa: ASYNC910  it may be that the connection is gone
        """Stop the source and give back what was not taken.

        Cancellation: Is a checkpoint. If cancelled, the connection is closed: all is given back.
        """
        self._left = True
        self._waiting.unpark_all()
        noted, is_done = self._keep_noted(), False
        try:
            await self._supply.leave(self._clear, taken=[delivery.frame for delivery in self._taken])
            is_done = True
        except LinkError:
            pass
        finally:
            if not (self._taken and is_done):
                self._release()
        for delivery in noted:  # not before, or it would come to this consumer again
            self._settling.give_back(delivery)

    def _keep_noted(self) -> list[StompDelivery]:
        """Return the copies with a note that nobody took: they are not to go back as they are, which would be counted."""
        noted = [delivery for delivery in self._shelf if is_noted(delivery.frame.headers) and not self._is_exclusive()]
        for delivery in noted:
            self._shelf.remove(delivery)
            self._taken.add(delivery)
            delivery.settled = True
        return noted

    def _clear(self) -> list[Frame]:
        for delivery in self._shelf:
            self._spare(delivery)
        frames = [delivery.frame for delivery in self._shelf]
        self._shelf.clear()
        return frames

    # --- what those who settle call

    @override
    def read(self, frame: Frame) -> Letter:
        return self._post.read(frame, queue=self._wish.queue)

    @override
    def settle_nowait(self, delivery: StompDelivery, outcome: Outcome) -> bool:
        match outcome:
            case Ack(reply) if reply is None:
                self._settle(delivery, self._supply.ack)
            case Return() if is_noted(delivery.frame.headers) and not self._is_exclusive():
                return False  # that it comes again must not be counted
            case Return():
                self._spare(delivery)
                self._settle(delivery, self._supply.give_back)
            case DeadLetter(reason) if self.spec is None or not self.spec.dead_letters:
                if self.spec is not None:
                    self._post.drop(delivery.envelope, queue=self._wish.queue, reason=reason)
                self._settle(delivery, self._supply.ack if self.spec is not None else self._supply.put_aside)
            case _:
                return False
        return True

    @override
    async def settle(self, delivery: StompDelivery, outcome: Outcome) -> None:
        await self._pace.step()
        if isinstance(outcome, Retry) and trio.current_time() + outcome.after >= delivery.envelope.deadline:
            outcome = DeadLetter("expired")
        if delivery.settle_nowait(outcome):
            return
        delivery.settled = True
        await self._settling.settle(delivery, outcome)

    # --- what sends an outcome calls

    @override
    def is_here(self, delivery: StompDelivery) -> bool:
        return self._link is not None and self._link.lost is None

    @override
    def acknowledge(self, delivery: StompDelivery, settlement: StompSettlement) -> None:
        if settlement.acknowledges:
            self._end(delivery)
        else:
            self._settle(delivery, self._supply.ack)

    @override
    def give_up(self, delivery: StompDelivery, outcome: Outcome, error: Exception) -> bool:
        if not is_hopeless(error):
            self._post.hold(delivery.envelope, queue=self._wish.queue, error=error)
            return False
        if isinstance(outcome, Return):
            self._settle(delivery, self._supply.give_back)
            return True
        self._post.surrender(delivery.envelope, queue=self._wish.queue, outcome=outcome, error=error)
        self._settle(delivery, self._supply.put_aside)
        return True

    @override
    def put_back(self, delivery: StompDelivery, error: Exception | None) -> None:
        if error is not None:
            self._post.hold(delivery.envelope, queue=self._wish.queue, error=error)
        if self._left:
            self._spare(delivery)
            self._settle(delivery, self._supply.give_back)
            return
        self._taken.discard(delivery)
        self._shelf.append(delivery)
        self._waiting.unpark_all()

    @override
    def forget(self, delivery: StompDelivery) -> UnknownOutcomeError:
        self._end(delivery)
        return self._too_late(delivery)

    @override
    async def send(self, delivery: StompDelivery, outcome: Outcome, settlement: StompSettlement) -> None:
        queue, settlement.acknowledges = self._wish.queue, False
        match outcome:
            case Ack(reply) if reply is not None:
                await self._post.reply(reply, exchange=self.reply_exchange, on_written=settlement.written)
                return
            case Return():
                copy = self._post.noted(delivery, queue=queue, note=note_of(delivery.frame.headers).returned())
            case Retry(after):
                copy = self._post.copy(delivery, queue=queue, after=after)
                if after > 0 and not self._post.holds(after):
                    await self._post.postpone(copy, queue=queue, after=after, on_written=settlement.written)
                    return
            case DeadLetter(reason) if self.spec is not None:
                copy = self._post.dead_letter(delivery, queue=queue, grave=self.spec.dead_letters, reason=reason)
            case _:
                raise AssertionError(f"{outcome} takes no waiting")
        await self._replace(delivery, copy, settlement)

    @override
    async def send_note(self, delivery: StompDelivery, settlement: StompSettlement) -> None:
        note = next_note(delivery.frame.headers)
        copy = self._post.noted(delivery, queue=self._wish.queue, note=note)
        await self._replace(delivery, copy, settlement)

    async def _replace(self, delivery: StompDelivery, copy: Frame, settlement: StompSettlement) -> None:
        """Send a copy, and acknowledge what it comes from with it where the server does both or neither."""
        settlement.acknowledges = True
        if not await self._supply.replace(delivery.frame, copy, on_written=settlement.written):
            settlement.acknowledges = False
            await self._post.send(copy, on_written=settlement.written)

    def _settle(self, delivery: StompDelivery, tell: Callable[[Frame], None]) -> None:
        delivery.settled = True
        try:
            tell(delivery.frame)
        except LinkLostError as error:
            raise self._too_late(delivery) from error
        finally:
            self._end(delivery)

    def _end(self, delivery: StompDelivery) -> None:
        if delivery not in self._taken:
            return
        self._taken.discard(delivery)
        if self._can_renew or self._shelf:
            self._waiting.unpark_all()
        if self._left and not self._taken:
            self._release()

    def _is_exclusive(self) -> bool:
        """Whether the queue goes away with its connection."""
        return self._wish.spec is not None and self._wish.spec.exclusive

    def _reason(self) -> UnavailableError:
        if self._error is None:
            return UnavailableError(f'nobody consumes from queue "{self._wish.queue}" here any more')
        return self._error()

    def _too_late(self, delivery: StompDelivery) -> UnknownOutcomeError:
        return UnknownOutcomeError(
            f"delivery {delivery.envelope.id} outlived its connection: the server has delivered it again, or will"
        )
