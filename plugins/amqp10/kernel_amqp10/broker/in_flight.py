"""What was handed out of one queue and is not settled: what becomes of it, and of what came again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import final

import attrs
from typing_extensions import override

from kernel import Ack, DeadLetter, Outcome, Pace, Retry, Return
from kernel.abc import CrashNote, Queue, Settlements, Settler, Settling, Spared, Subscription
from kernel.errors import UnknownOutcomeError

from .._addresses import Addresses
from .._errors import EndClosedError, LinkLostError
from ..link.receiver import Arrived, ReceiverLink
from ..link.sender import OnWritten
from .crashes import next_note
from .delivery import Amqp10Delivery, Desk
from .post import Post, is_hopeless
from .settlement import Amqp10Settlement


@final
@attrs.define(eq=False, repr=False)
class InFlight(Desk, Settler[Amqp10Delivery, Amqp10Settlement]):
    """Settles what a consumer has handed out, as long as its links are open.

    An outcome that cannot be sent at once is kept, and sent as soon as it can be: what was handled is not delivered again
    for that. One that never can be sent has the broker put the message aside.
    """

    _wish: Subscription
    _spec: Queue | None
    """How the queue was declared; None if somebody else did."""
    _addresses: Addresses
    _post: Post
    _start: Callable[[Callable[[], Awaitable[None]]], None]
    """Starts a task that lives as long as the driver."""
    _spared: Spared
    _settlements: Settlements
    taken: set[Amqp10Delivery] = attrs.field(factory=set[Amqp10Delivery], init=False)
    """Handed out and not settled, or on its way back."""
    is_left: bool = attrs.field(default=False, init=False)
    """Whether the subscription was left."""
    is_over: bool = attrs.field(default=False, init=False)
    """Whether nothing is handed out any more, for whatever reason."""
    _put_back: Callable[[Amqp10Delivery], None] = attrs.field(init=False)
    _ended: Callable[[], None] = attrs.field(init=False)
    _owed: dict[ReceiverLink, int] = attrs.field(factory=dict[ReceiverLink, int], init=False)
    """Credit that was used up and may be given again."""
    _pace: Pace = attrs.field(factory=Pace, init=False)
    _settling: Settling[Amqp10Delivery, Amqp10Settlement] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._settling = Settling(self, self._settlements, self._start, Amqp10Settlement)

    @property
    def is_exclusive(self) -> bool:
        """Whether the queue goes away with its connection."""
        return self._spec is not None and self._spec.exclusive

    def tell_back(self, put_back: Callable[[Amqp10Delivery], None], ended: Callable[[], None]) -> None:
        """Say who hands out again what is put back, and is told of each that ended."""
        self._put_back, self._ended = put_back, ended

    # --- what comes, and what goes back

    def is_suspect(self, delivery: Amqp10Delivery) -> bool:
        """Whether the process that had a message before may have died with it, and nobody counts that."""
        if self.is_left or self.is_exclusive or not delivery.letter.is_uncounted:
            return False
        return not self._spared.take(self._wish.queue, delivery.envelope.id)

    def must_copy(self, delivery: Amqp10Delivery) -> bool:
        """Whether to come again as it is would be counted, though it is given back in order."""
        return delivery.letter.note is not None and not self.is_exclusive

    def note(self, delivery: Amqp10Delivery) -> None:
        """Have a suspect come again with a note that counts."""
        self.taken.add(delivery)
        delivery.settled = True
        self._settling.note(delivery)

    def give_back(self, delivery: Amqp10Delivery) -> None:
        """Give back what nobody took."""
        if not self.must_copy(delivery):
            self.spare(delivery)
            release(delivery.arrived)
            return
        self.taken.add(delivery)
        delivery.settled = True
        self._settling.give_back(delivery)

    def reject(self, arrived: Arrived) -> None:
        """Have the broker put aside what cannot be read."""
        arrived.link.settle(arrived, arrived.link.rejected)
        self.owe(arrived.link)

    def spare(self, delivery: Amqp10Delivery) -> None:
        """Take note that a delivery comes again and nobody has died with it."""
        self._spared.add(self._wish.queue, delivery.envelope.id)

    def lose(self, untaken: Collection[Amqp10Delivery], *, most: int | None) -> None:
        """Take note that a link is gone, with what was read and not taken.

        Args:
            untaken: What was read and not taken.
            most: How many may have been sent; None if the connection is still there, which then knows each.
        """
        for delivery in (*untaken, *self.taken):
            self.spare(delivery)
        if most is not None:
            self._spared.lose(self._wish.queue, most - len(untaken) - len(self.taken))
        self._settling.lose()

    # --- what those who settle call

    @override
    def settle_nowait(self, delivery: Amqp10Delivery, outcome: Outcome) -> bool:
        link = delivery.arrived.link
        match outcome:
            case Ack(None):
                self._say(delivery, link.accepted)
            case Return() if self.must_copy(delivery):
                return False
            case Return():
                self.spare(delivery)
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
        if self.is_left or self.is_over:
            self.spare(delivery)
            self._say(delivery, delivery.arrived.link.released)
            return
        self.taken.discard(delivery)
        delivery.settled = False
        self._put_back(delivery)

    @override
    def forget(self, delivery: Amqp10Delivery) -> UnknownOutcomeError:
        self._end(delivery)
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

    def _say(self, delivery: Amqp10Delivery, state: int, *, failed: bool = False) -> None:
        delivery.settled = True
        link = delivery.arrived.link
        try:
            link.settle(delivery.arrived, state, failed=failed)
        except (EndClosedError, LinkLostError) as error:
            raise self._too_late(delivery) from error
        finally:
            self.owe(link)
            self._end(delivery)

    def owe(self, link: ReceiverLink) -> None:
        """Give credit again: now where none is left, and otherwise when it is worth a frame."""
        if self.is_left:
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

    def _end(self, delivery: Amqp10Delivery) -> None:
        self.taken.discard(delivery)
        self._ended()


def release(arrived: Arrived) -> None:
    """Give back what was not read."""
    if arrived.link.error is None:
        arrived.link.settle(arrived, arrived.link.released)
