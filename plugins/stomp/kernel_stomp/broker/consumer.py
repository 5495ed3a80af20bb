"""What takes from a queue: one for each subscription, with a connection of its own.

Every mistake ends a connection of STOMP, so that of one consumer is nobody else's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final, final

import attrs
import trio
from typing_extensions import override

from kernel.abc import Delivery, Queue
from kernel.errors import SubscriptionLostError, UnavailableError

from .._errors import LinkError, LinkLostError
from ..core import Frame
from ..link.link import Link
from .delivery import StompDelivery
from .dialect import Supply, Wish
from .in_flight import InFlight
from .post import Post

_IDLE_WAIT: Final = 60.0
"""Seconds in which what was in hand when a connection broke has to end; after that, the dispatcher has to."""
_SLACK: Final = 10_000
"""Messages that a server may send beyond what was asked for, before its connection is ended; of an exclusive queue a
hundred come for each of its bindings."""


@final
@attrs.define(eq=False, repr=False)
class Consumer(AsyncIterator[Delivery]):
    """Takes from one queue; settles what it brought, as long as its connection is open.

    The connection stays open until the subscription has been left and everything that was taken is settled. An outcome
    that cannot be sent at once is kept, and sent as soon as it can be, as long as the connection is open.
    """

    _wish: Wish
    _supply: Supply
    _post: Post
    _release: Callable[[], None]
    """Has the connection closed."""
    in_flight: InFlight
    """What was handed out and is not settled."""
    prefetch: int
    """Deliveries that may be handed out and not settled."""
    _link: Link | None = attrs.field(default=None, init=False)
    _shelf: deque[StompDelivery] = attrs.field(factory=deque[StompDelivery], init=False)
    """What has come and was not handed out."""
    _error: Callable[[], UnavailableError] | None = attrs.field(default=None, init=False)
    """Why nothing comes any more."""
    _can_renew: bool = attrs.field(default=False, init=False)
    """Whether to subscribe again, on the next connection, mends what has ended."""
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

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
        self._link = self.in_flight.link = link
        self.in_flight.tell_back(self._put_back, self._ended)
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
            self._put(StompDelivery(frame, self.in_flight))

    def _put(self, delivery: StompDelivery) -> None:
        if self.in_flight.is_suspect(delivery):
            self.in_flight.note(delivery)
            return
        self._shelf.append(delivery)
        if self._waiting:
            self._waiting.unpark()

    def _put_back(self, delivery: StompDelivery) -> None:
        self._shelf.append(delivery)
        self._waiting.unpark_all()

    def _ended(self) -> None:
        """Take note that something is settled."""
        if self._waiting and (self._can_renew or self._shelf):
            self._waiting.unpark_all()

    def lose(self, error: LinkLostError) -> None:
        """Take note that the connection is gone."""
        self.in_flight.lose(self._shelf, prefetch=self.prefetch)
        self._shelf.clear()
        self._can_renew = not self._wish.is_exclusive
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
            if self._error is not None or self.in_flight.is_left:
                raise await self._end_of_all()
            if self._shelf and len(self.in_flight.taken) < self.prefetch:
                delivery = self._shelf.popleft()
                self.in_flight.taken.add(delivery)
                return delivery  # noqa: ASYNC910  no more than `prefetch` are at hand: it waits soon enough
            await self._waiting.park()

    async def _end_of_all(self) -> UnavailableError:
        """Return why nothing comes any more.

        What was handed out comes again as soon as somebody subscribes, so that is not yet the time for it.
        """
        reason = self._reason()
        if not self._can_renew or self.in_flight.is_left:
            return reason  # noqa: ASYNC910  whoever is told goes on to wait
        with trio.move_on_after(_IDLE_WAIT):
            while self.in_flight.taken:
                await self._waiting.park()
        return reason if self.in_flight.taken else SubscriptionLostError(str(reason))  # noqa: ASYNC910  whoever is told goes on to wait

    async def leave(self) -> None:  # noqa: ASYNC910  it may be that the connection is gone
        """Stop the source and give back what was not taken.

        Cancellation: Is a checkpoint. If cancelled, the connection is closed: all is given back.
        """
        self.in_flight.is_left = True
        self._waiting.unpark_all()
        noted, is_done = self._keep_noted(), False
        try:
            await self._supply.leave(self._clear, taken=[delivery.frame for delivery in self.in_flight.taken])
            is_done = True
        except LinkError:
            pass
        finally:
            if not (self.in_flight.taken and is_done):
                self._release()
        for delivery in noted:  # not before, or it would come to this consumer again
            self.in_flight.give_back(delivery)

    def _keep_noted(self) -> list[StompDelivery]:
        """Return the copies with a note that nobody took: they are not to go back as they are, which would be counted."""
        noted = [delivery for delivery in self._shelf if self.in_flight.must_copy(delivery)]
        for delivery in noted:
            self._shelf.remove(delivery)
            self.in_flight.taken.add(delivery)
            delivery.settled = True
        return noted

    def _clear(self) -> list[Frame]:
        for delivery in self._shelf:
            self.in_flight.spare(delivery)
        frames = [delivery.frame for delivery in self._shelf]
        self._shelf.clear()
        return frames

    def _reason(self) -> UnavailableError:
        if self._error is None:
            return UnavailableError(f'nobody consumes from queue "{self._wish.queue}" here any more')
        return self._error()
