"""What takes from a queue: one for each subscription, with a session of its own for each address."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final, final

import attrs
import trio
from typing_extensions import override

from kernel import Pace
from kernel.abc import Delivery, Subscription
from kernel.errors import ConflictError, SubscriptionLostError, UnavailableError

from .._addresses import Addresses
from .._errors import EndClosedError, LinkLostError
from ..link.engine import Engine
from ..link.receiver import Arrived, ReceiverLink
from .delivery import Amqp10Delivery
from .in_flight import InFlight, release
from .post import Post
from .reading import Reader

_IDLE_WAIT: Final = 60.0
"""Seconds in which what was in hand when a connection broke has to end; after that, the dispatcher has to."""


@final
@attrs.define(eq=False, repr=False)
class Consumer(AsyncIterator[Delivery]):
    """Takes from one queue. Its links stay open until it has been left and everything that was taken is settled."""

    _wish: Subscription
    _addresses: Addresses
    _post: Post
    _engine: Engine
    in_flight: InFlight
    """What was handed out and is not settled."""
    _reader: Reader = attrs.field(init=False)
    _pace: Pace = attrs.field(factory=Pace, init=False)
    _links: list[ReceiverLink] = attrs.field(factory=list[ReceiverLink], init=False)
    _shelf: deque[Arrived] = attrs.field(factory=deque[Arrived], init=False)
    _ready: deque[Amqp10Delivery] = attrs.field(factory=deque[Amqp10Delivery], init=False)
    """What was read and goes out before all that is on the shelf."""
    _error: Callable[[], UnavailableError] | None = attrs.field(default=None, init=False)
    """Why nothing comes any more."""
    _can_renew: bool = attrs.field(default=False, init=False)
    """Whether to subscribe again, on the next connection, mends what has ended."""
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def __attrs_post_init__(self) -> None:
        self._reader = Reader(self._engine.proton, self._addresses)
        self.in_flight.tell_back(self._put_back, self._ended)

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
            link = ReceiverLink(source, self._engine, self._take_in, self._lose, self._drop)
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
        if self.in_flight.is_left:
            release(arrived)
            return
        self._shelf.append(arrived)
        if self._waiting:
            self._waiting.unpark()

    def _put_back(self, delivery: Amqp10Delivery) -> None:
        self._ready.append(delivery)
        self._waiting.unpark_all()

    def _ended(self) -> None:
        """Take note that something is settled."""
        self._waiting.unpark_all()
        if self.in_flight.is_left and not self.in_flight.taken:
            self._close()

    def _drop(self, link: ReceiverLink, size: int) -> None:
        if size:
            queue = self._wish.queue
            self._post.warn(f'a message of {size} bytes in queue "{queue}" is larger than `max_message_bytes`')
        self.in_flight.owe(link)

    def _lose(self, error: EndClosedError | LinkLostError) -> None:
        unseen = len(self._links) * self._wish.prefetch if isinstance(error, LinkLostError) else None
        self.in_flight.lose(self._ready, most=unseen)
        self._shelf.clear()
        self._ready.clear()
        self._can_renew = isinstance(error, LinkLostError) and not self.in_flight.is_exclusive
        text = f'what consumed from queue "{self._wish.queue}" is gone: {error}'
        self.end(lambda: UnavailableError(text))

    def end(self, error: Callable[[], UnavailableError]) -> None:
        """Hand out nothing any more, and say so to whoever waits."""
        self._error = self._error or error
        self.in_flight.is_over = True
        self._waiting.unpark_all()

    def _close(self) -> None:
        for link in self._links:
            link.close()

    # --- what the dispatcher calls

    @override
    async def __anext__(self) -> Delivery:
        await self._pace.step()
        while True:
            if self._error is not None or self.in_flight.is_left:
                raise await self._end_of_all()
            if (self._ready or self._shelf) and len(self.in_flight.taken) < self._wish.prefetch:
                delivery = self._ready.popleft() if self._ready else self._read(self._shelf.popleft())
                if delivery is not None:
                    self.in_flight.taken.add(delivery)
                    return delivery
                continue
            await self._waiting.park()

    def _read(self, arrived: Arrived) -> Amqp10Delivery | None:
        """Return what arrived as a delivery; what cannot be read is rejected, and what is suspect comes again."""
        try:
            letter = self._reader.read(arrived.data, now=trio.current_time())
        except ValueError as error:
            self._post.warn(f'a message in queue "{self._wish.queue}" is rejected: {error}')
            self.in_flight.reject(arrived)
            return None
        delivery = Amqp10Delivery(arrived, letter, self.in_flight)
        if not self.in_flight.is_suspect(delivery):
            return delivery
        self.in_flight.note(delivery)
        return None

    async def _end_of_all(self) -> UnavailableError:
        """Return why nothing comes any more.

        What was handed out comes again as soon as somebody subscribes, so that is not yet the time for it.
        """
        reason = UnavailableError("the subscription was left") if self._error is None else self._error()
        if not self._can_renew or self.in_flight.is_left:
            await trio.lowlevel.checkpoint()
            return reason
        with trio.move_on_after(_IDLE_WAIT):
            while self.in_flight.taken:
                await self._waiting.park()
        await trio.lowlevel.checkpoint()
        return reason if self.in_flight.taken else SubscriptionLostError(str(reason))

    async def leave(self) -> None:
        """Stop the source and give back what was not taken.

        Cancellation: Is a checkpoint. If cancelled, the broker may still bring something, which is given back.
        """
        self.in_flight.is_left = True
        self._waiting.unpark_all()
        for link in self._links:
            link.flow(-link.credit)
        while self._ready or self._shelf:
            delivery = self._ready.popleft() if self._ready else self._read(self._shelf.popleft())
            if delivery is not None:
                self.in_flight.give_back(delivery)
        if self.in_flight.taken:
            await trio.lowlevel.checkpoint()
            return
        self._close()
        while any(not link.is_ended for link in self._links) and self._engine.over is None:
            await self._waiting.park()
        await trio.lowlevel.checkpoint()
