"""One channel of a connection: methods, confirmed publishes, consumers and acknowledgements.

What goes wrong on it stays on it. Nothing that was delivered on a channel is ever settled on another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, cast, final

import attrs
import trio
from pamqp import base, commands
from pamqp.common import Arguments

from .._errors import ChannelClosedError, LinkLostError
from ..core import Channel, ChannelState, Delivered, Properties, Returned, TooLarge, with_names
from .calls import Calls
from .confirms import Confirms
from .receipts import Receipt
from .writer import Writer

ClosedError: TypeAlias = ChannelClosedError | LinkLostError
OnWritten: TypeAlias = Callable[[Receipt], None]
_CLOSE_TIMEOUT: Final = 2.0
"""Seconds that leaving a channel waits for the broker's answer."""


@final
@attrs.frozen(kw_only=True, repr=False)
class _Consumer:
    on_delivery: Callable[[Delivered | TooLarge], None]
    on_cancel: Callable[[str], None]


@final
@attrs.define(eq=False, repr=False)
class LinkChannel:
    """One channel, open from the beginning to the end of `Link.open_channel`.

    Methods and publishes may be used from many tasks at once.
    """

    _core: Channel
    _writer: Writer
    _on_closed: Callable[[ClosedError], None] | None
    closed: ClosedError | None = attrs.field(default=None, init=False)
    """Why the channel is gone; None while it is open."""
    _gone: trio.Event = attrs.field(factory=trio.Event, init=False)
    _left: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when no answer to our closing is to come any more."""
    _calls: Calls = attrs.field(factory=Calls, init=False)
    _confirms: Confirms = attrs.field(factory=Confirms, init=False)
    _consumers: dict[str, _Consumer] = attrs.field(factory=dict[str, _Consumer], init=False)

    async def wait_closed(self) -> ClosedError:
        """Wait until the channel is gone, and return why.

        Cancellation: Is a checkpoint.
        """
        await self._gone.wait()
        return self._reason(written=False)

    async def call(self, method: base.Frame) -> base.Frame:
        """Send a synchronous method and return the broker's answer.

        Methods of one channel wait for each other.

        Raises:
            ChannelClosedError: if the broker refuses it; the channel is gone then.
            LinkLostError: if the connection is gone; what became of the method is unknown.

        Cancellation: Is a checkpoint. If cancelled, the broker may have done it; the answer is ignored.
        """
        await self._calls.wait_turn()
        self._check()
        self._core.call(method)
        self._writer.ring()
        answer = await self._calls.wait_answer()
        assert answer is not None  # only the opening is answered without a frame
        return answer

    async def confirm_select(self) -> None:
        """Have the broker confirm each message that is published from here on.

        Raises and Cancellation: as `call`.
        """
        await self.call(commands.Confirm.Select())

    async def publish(
        self,
        *,
        exchange: str,
        routing_key: str,
        properties: Properties,
        body: bytes,
        mandatory: bool = False,
        on_written: OnWritten | None = None,
    ) -> None:
        """Publish a message; return when the broker has taken responsibility for it.

        Waits before anything is written while the broker takes no messages, while too many bytes are unsent (1 MiB), and
        while too many publishes of the channel have no answer (65,536, cancelled ones included). On a
        channel without `confirm_select` it returns as soon as the message is in the write buffer.

        Args:
            exchange: Its name; empty for the queue that `routing_key` names.
            routing_key: What the exchange routes by.
            properties: What is written on the outside.
            body: Its bytes; any number of frames.
            mandatory: Whether it is an error that no queue gets it. Give such a message a `message_id`: returns do
                not say which publish they belong to, and equal ones are told apart by order alone.
            on_written: Called when it is in the write buffer: from here on, the broker may have it, and its answer is
                waited for however long that takes. What it is called with has the answer for whoever waits later.

        Raises:
            ReturnedError: if it is mandatory and no queue is bound for it.
            RefusedError: if the broker did not take it.
            ConfirmLateError: if it has not answered within 30 s after the message was written; told up to 5 s later;
                not where there is `on_written`.
            ChannelClosedError: if the broker closed the channel, for this message or for something else.
            LinkLostError: if the connection is gone. Its `written`, and that of ChannelClosedError, says whether the
                message may have reached the broker.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been sent, but never a part of it.
        """
        writer, confirms = self._writer, self._confirms
        await trio.lowlevel.checkpoint_if_cancelled()
        if writer.room.is_shut or confirms.is_full:
            await self._wait_turn(len(body))
            taken = writer.taken
            try:
                number = self._put(exchange, routing_key, properties, body, mandatory)
            finally:
                writer.room.redeem(len(body))
        else:
            taken = writer.taken
            number = self._put(exchange, routing_key, properties, body, mandatory)
        if not number:
            await trio.lowlevel.checkpoint()
            return
        if on_written is None:
            await confirms.wait(number)
            failure = confirms.failure(number)
        else:
            on_written(receipt := confirms.receipt(number))
            failure = await receipt.wait()
        if failure is not None:
            raise self._seen(failure, taken)
        writer.note_seen(taken)

    @property
    def must_wait(self) -> bool:
        """Whether who publishes has to wait before anything is written."""
        return self._writer.room.is_shut or self._confirms.is_full

    def _put(self, exchange: str, routing_key: str, properties: Properties, body: bytes, mandatory: bool) -> int:  # noqa: FBT001  as fast as can be
        """Put a message into the write buffer; return its number."""
        if self.closed is not None:
            raise self._reason(written=False)
        number = self._core.publish(
            exchange=exchange, routing_key=routing_key, properties=properties, body=body, mandatory=mandatory
        )
        if mandatory and number:
            # As `mark_of`: a call less for each message.
            self._confirms.expect_return(
                number, (exchange, routing_key, properties.message_id, properties.correlation_id)
            )
        self._writer.wrote(len(body))
        return number

    def _seen(self, failure: Exception, taken: int) -> Exception:
        """Return what to raise for a message that was put when so many bytes had been taken."""
        if isinstance(failure, (ChannelClosedError, LinkLostError)):
            return failure.again(written=self._writer.taken > taken)
        return failure

    def ack(self, delivery_tag: int) -> None:
        """Acknowledge a delivery of this channel; goes to the write buffer at once.

        Raises:
            ChannelClosedError: if the channel is gone: the broker delivers it again, and nothing is sent.
            LinkLostError: likewise, if the connection is gone.
        """
        if self.closed is not None:
            raise self._reason(written=False)
        self._core.ack(delivery_tag)
        self._writer.acked()

    def nack(self, delivery_tag: int, *, requeue: bool) -> None:
        """Reject a delivery of this channel: back to its queue, or to its dead letters; otherwise as `ack`."""
        self._check()
        self._core.nack(delivery_tag, requeue=requeue)
        self._writer.ring()

    async def consume(
        self,
        queue: str,
        *,
        consumer_tag: str,
        on_delivery: Callable[[Delivered | TooLarge], None],
        on_cancel: Callable[[str], None],
        exclusive: bool = False,
        no_ack: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        """Start a consumer.

        Args:
            queue: Its name.
            consumer_tag: Its name on this channel; not empty.
            on_delivery: Called with each delivery from the task that reads the connection: it only notes and wakes.
            on_cancel: Called with the tag, likewise, if the broker cancels the consumer (its queue is deleted).
            exclusive: Whether no other consumer may have the queue.
            no_ack: Whether the broker forgets what it delivers; such deliveries must not be settled.
            arguments: Of the broker's own.

        Raises: as `call`.
        Cancellation: Is a checkpoint. If cancelled, the consumer may have been started: leave the channel.
        """
        self._consumers[consumer_tag] = _Consumer(on_delivery=on_delivery, on_cancel=on_cancel)
        method = commands.Basic.Consume(
            consumer_tag=consumer_tag,
            exclusive=exclusive,
            no_ack=no_ack,
            arguments=cast("Arguments", arguments),
        )
        await self.call(with_names(method, queue=queue))

    async def cancel_consumer(self, consumer_tag: str) -> None:
        """Stop a consumer; afterwards nothing more comes. What has come can still be settled.

        Raises and Cancellation: as `call`.
        """
        await self.call(commands.Basic.Cancel(consumer_tag=consumer_tag))
        self._consumers.pop(consumer_tag, None)

    async def flush(self) -> None:
        """Return when the broker has seen everything that was written to the channel before.

        Raises and Cancellation: as `call`.
        """
        await self.call(commands.Channel.Flow(active=True))

    async def open(self) -> None:
        """Wait until the broker has opened the channel; for the link alone.

        Raises:
            LinkLostError: if the connection is gone.

        Cancellation: Is a checkpoint.
        """
        self._check()
        self._writer.ring()
        await self._calls.wait_answer()

    async def aclose(self) -> None:
        """Close the channel, if it is open; for the link alone.

        Cancellation: Shielded for at most 2 s.
        """
        if self.closed is None:
            self._end(ChannelClosedError(200, "it was left", ""))
            self._core.close()
            self._writer.ring()
            with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await self._left.wait()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def opened(self) -> None:
        """Take note that the broker has opened the channel."""
        self._calls.answer(None)

    def left(self) -> None:
        """Take note that the broker has answered the closing."""
        self._left.set()

    def replied(self, method: base.Frame) -> None:
        """Take the answer to the method that is on its way."""
        self._calls.answer(method)

    def deliver(self, event: Delivered | TooLarge) -> None:
        """Hand a delivery to its consumer; one that nobody expects goes back to its queue."""
        consumer = self._consumers.get(event.consumer_tag)
        if consumer is not None:
            consumer.on_delivery(event)
        elif self._core.state is ChannelState.OPEN:  # its end may be among the events that come next
            self.nack(event.delivery_tag, requeue=True)

    def confirm(self, first: int, last: int, *, taken: bool) -> None:
        """Take the broker's answer to publishes."""
        self._confirms.confirm(first, last, taken=taken)

    def sweep(self, now: float) -> None:
        """Fail publishes that have had no answer for too long."""
        self._confirms.sweep(now)

    def give_back(self, event: Returned) -> None:
        """Take a message that came back."""
        self._confirms.give_back(event)

    def cancelled(self, consumer_tag: str) -> None:
        """Take note that the broker has cancelled a consumer."""
        consumer = self._consumers.pop(consumer_tag, None)
        if consumer is not None:
            consumer.on_cancel(consumer_tag)

    def lose(self, error: ClosedError) -> None:
        """Take note that the channel is gone, and tell everybody who waits."""
        if self.closed is None:
            self._end(error)
            if self._on_closed is not None:
                self._on_closed(error.again(written=False))
        self._left.set()

    async def _wait_turn(self, size: int) -> None:
        """Wait for the turn of a publish, as long as there is a channel to publish on; room is kept for it then."""
        await trio.lowlevel.checkpoint()
        while self.closed is None and self._confirms.is_full:
            await self._confirms.wait_room()
        self._check()
        if not await self._writer.room.wait_turn(self, size):
            self._check()

    def _end(self, error: ClosedError) -> None:
        self.closed = error
        self._consumers.clear()
        self._gone.set()
        self._calls.fail(error)
        self._confirms.fail(error)
        self._writer.room.dismiss(self)

    def _check(self) -> None:
        if self.closed is not None:
            raise self._reason(written=False)

    def _reason(self, *, written: bool) -> ClosedError:
        assert self.closed is not None
        return self.closed.again(written=written)
