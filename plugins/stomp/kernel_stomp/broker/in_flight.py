"""What was handed out of one queue and is not settled: what becomes of it, and of what came again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import final

import attrs
import trio
from typing_extensions import override

from kernel import Ack, DeadLetter, Outcome, Pace, Retry, Return
from kernel.abc import Settlements, Settler, Settling, Spared
from kernel.errors import UnknownOutcomeError

from .._errors import LinkLostError
from ..core import Frame
from ..link.link import Link
from .crashes import is_noted, is_suspect, next_note, note_of
from .delivery import Desk, StompDelivery
from .dialect import Supply, Wish
from .letters import Letter
from .post import Post, is_hopeless
from .settlement import StompSettlement


@final
@attrs.define(eq=False, repr=False)
class InFlight(Desk, Settler[StompDelivery, StompSettlement]):
    """Settles what a consumer has handed out, as long as its connection is open.

    An outcome that cannot be sent at once is kept, and sent as soon as it can be, as long as the connection is open.
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
    reply_exchange: str = ""
    """Where answers are sent; empty for the queue that each names."""
    link: Link | None = attrs.field(default=None, init=False)
    taken: set[StompDelivery] = attrs.field(factory=set[StompDelivery], init=False)
    """Handed out and not settled, or on its way back."""
    is_left: bool = attrs.field(default=False, init=False)
    """Whether the subscription was left: with the last that ends, so does the connection."""
    _put_back: Callable[[StompDelivery], None] = attrs.field(init=False)
    _ended: Callable[[], None] = attrs.field(init=False)
    _settling: Settling[StompDelivery, StompSettlement] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._settling = Settling(self, self._settlements, self._start, StompSettlement)

    def tell_back(self, put_back: Callable[[StompDelivery], None], ended: Callable[[], None]) -> None:
        """Say who hands out again what is put back, and is told of each that ended."""
        self._put_back, self._ended = put_back, ended

    # --- what comes, and what goes back

    def is_suspect(self, delivery: StompDelivery) -> bool:
        """Whether the process that had a message before may have died with it, and nobody counts that."""
        frame = delivery.frame
        if not is_suspect(frame.headers) or self.is_left or self._wish.is_exclusive:
            return False
        return not self._spared.take(self._wish.queue, self._post.id_of(frame))

    def must_copy(self, delivery: StompDelivery) -> bool:
        """Whether to come again as it is would be counted, though it is given back in order."""
        return is_noted(delivery.frame.headers) and not self._wish.is_exclusive

    def note(self, delivery: StompDelivery) -> None:
        """Have a suspect come again with a note that counts."""
        self.taken.add(delivery)
        self._settling.note(delivery)

    def give_back(self, delivery: StompDelivery) -> None:
        """Give back by a copy what is in hand and nobody took."""
        self._settling.give_back(delivery)

    def spare(self, delivery: StompDelivery) -> None:
        """Take note that a delivery comes again and nobody has died with it."""
        self._spared.add(self._wish.queue, self._post.id_of(delivery.frame))

    def lose(self, untaken: Collection[StompDelivery], *, prefetch: int) -> None:
        """Take note that the connection is gone, with what had come and was not taken."""
        for delivery in (*untaken, *self.taken):
            self.spare(delivery)
        if not self.is_left:
            self._spared.lose(self._wish.queue, prefetch - len(untaken) - len(self.taken))
        self._settling.lose()

    # --- what those who settle call

    @override
    def read(self, frame: Frame) -> Letter:
        return self._post.read(frame, queue=self._wish.queue)

    @override
    def settle_nowait(self, delivery: StompDelivery, outcome: Outcome) -> bool:
        if isinstance(outcome, Ack):  # as nearly all are
            if outcome.reply is None:
                self._settle(delivery, self._supply.ack)
            return outcome.reply is None
        match outcome:
            case Return() if self.must_copy(delivery):
                return False  # that it comes again must not be counted
            case Return():
                self.spare(delivery)
                self._settle(delivery, self._supply.give_back)
            case DeadLetter(reason) if self._wish.spec is None or not self._wish.spec.dead_letters:
                if self._wish.spec is not None:
                    self._post.drop(delivery.envelope, queue=self._wish.queue, reason=reason)
                self._settle(delivery, self._supply.ack if self._wish.spec is not None else self._supply.put_aside)
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
        return self.link is not None and self.link.lost is None

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
        if self.is_left:
            self.spare(delivery)
            self._settle(delivery, self._supply.give_back)
            return
        self.taken.discard(delivery)
        self._put_back(delivery)

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
            case DeadLetter(reason) if self._wish.spec is not None:
                copy = self._post.dead_letter(delivery, queue=queue, grave=self._wish.spec.dead_letters, reason=reason)
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
        if delivery not in self.taken:
            return
        self.taken.discard(delivery)
        self._ended()
        if self.is_left and not self.taken:
            self._release()

    def _too_late(self, delivery: StompDelivery) -> UnknownOutcomeError:
        return UnknownOutcomeError(
            f"delivery {delivery.envelope.id} outlived its connection: the server has delivered it again, or will"
        )
