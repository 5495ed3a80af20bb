"""Sends messages, each confirmed by the broker: one channel for each exchange, through all connections there will be.

What one message does to its channel disturbs those of no other exchange.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

import attrs
import trio

from kernel.errors import (
    EncodeError,
    KernelError,
    QueueFullError,
    UnavailableError,
    UnknownOutcomeError,
    UnroutableError,
)

from .._errors import (
    ChannelClosedError,
    ConfirmLateError,
    LinkLostError,
    RefusedError,
    ReturnedError,
    UnansweredError,
)
from ..core import EncodingError, Properties
from ..link.channel import OnWritten
from ..link.keeper import Keeper
from ..link.session import Held, Session
from .conflicts import NOT_FOUND, is_about, send_error
from .declaring import exchange_look

_MAX_LANES: Final = 64
"""Channels that stay open while nobody sends on them, at most: the ones used last, and half of what there may be. Of more
that were used at a time, those that are not any more are left when another one is opened."""


@final
@attrs.define(eq=False, repr=False)
class _Lane:
    """The channel of one exchange, in one life of the connection."""

    exchange: str
    session: Session
    held: Held | None = attrs.field(default=None, init=False)
    users: int = attrs.field(default=0, init=False)
    """Tasks that send on it or are about to."""
    _lock: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    closed: bool = attrs.field(default=False, init=False)
    _others: bool = attrs.field(default=False, init=False)
    """Whether somebody went away whose message may be the one that the broker closed the channel for."""
    _sharers: int = attrs.field(default=0, init=False)
    """Its users when the broker closed the channel."""

    @property
    def is_ones_own(self) -> bool:
        """Whether a channel that was closed had one message on its way, which must be the guilty one."""
        return self._sharers == 1 and not self._others

    def abandon(self) -> None:
        """Take note that a user was cancelled, whose message may be under way."""
        self._others = True

    async def open(self) -> Held:
        """Open the channel, unless somebody else does meanwhile."""
        async with self._lock:
            if self.held is None:
                self.held = await self._open()
        return self.held

    async def _open(self) -> Held:
        held = await self.session.hold(on_closed=self._note)
        try:
            if self.exchange:
                await held.channel.call(exchange_look(self.exchange))
            await held.channel.confirm_select()
        except BaseException:
            held.release()
            raise
        return held

    def _note(self, _: object) -> None:
        self.closed = True
        self._sharers = self.users

    def leave(self) -> None:
        self.closed = True
        if self.held is not None:
            self.held.release()


@final
@attrs.define(eq=False, repr=False)
class Outbox:
    """Sends over the connection that is for sending. Safe to share between tasks."""

    _keeper: Keeper
    _lanes: OrderedDict[str, _Lane] = attrs.field(factory=OrderedDict[str, _Lane], init=False)

    def takes_at_once(self, exchange: str) -> bool:
        """Whether `publish` would write a message without waiting."""
        lane = self._lanes.get(exchange)
        if lane is None or lane.closed or lane.session is not self._keeper.current or lane.held is None:
            return False
        return not lane.held.channel.must_wait

    async def publish(
        self,
        properties: Properties,
        body: bytes,
        *,
        exchange: str,
        routing_key: str,
        mandatory: bool,
        on_written: OnWritten | None = None,
        once: bool = False,
    ) -> None:
        """Send a message; returns when the broker has confirmed it.

        Waits for a connection, and while the broker takes no messages. `on_written` is called when that is over: from
        here on, the broker may have it, and its answer is waited for however long that takes. With `once`, the message
        is not sent anew over the next connection if the one that there is breaks before it left.

        Raises:
            UnroutableError: if there is no such exchange; if mandatory, and no queue is bound.
            QueueFullError: if a queue refused it.
            EncodeError: if something of it has no place in AMQP.
            SendError: if this user must not send there, or the broker takes no such message.
            UnknownOutcomeError: if the connection broke, or the channel for another message's sake, before the
                broker answered; if it has not answered within 30 s after the message was written, and there is no
                `on_written`.
            UnavailableError: if the driver is closed; if `once`, and the message has not left.
            UnansweredError: if the wait for the receipt was given up.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been sent.
        """
        while True:
            session = self._keeper.current or await self._keeper.session()
            lane = self._lanes.get(exchange)
            if lane is None or lane.closed or lane.session is not session:
                lane = self._open_lane(exchange, session)
            if len(self._lanes) > 1:
                self._lanes.move_to_end(exchange)
            lane.users += 1
            try:
                held = lane.held or await self._open(lane)
                await held.channel.publish(
                    exchange=exchange,
                    routing_key=routing_key,
                    properties=properties,
                    body=body,
                    mandatory=mandatory,
                    on_written=on_written,
                )
            except (LinkLostError, ChannelClosedError) as error:
                lane.closed = True
                if error.written:
                    raise _outcome(lane, error, routing_key, properties, body) from error
                if once:
                    raise UnavailableError(str(error)) from error
            except (trio.Cancelled, UnansweredError):
                lane.abandon()
                raise
            except (ConfirmLateError, ReturnedError, RefusedError, EncodingError) as error:
                raise _not_taken(lane, error, routing_key) from error
            else:
                return
            finally:
                lane.users -= 1
            await trio.lowlevel.checkpoint()  # certainly nothing was sent: try again

    def _open_lane(self, exchange: str, session: Session) -> _Lane:
        lane = self._lanes[exchange] = _Lane(exchange, session)
        surplus = len(self._lanes) - min(_MAX_LANES, session.link.channel_max // 2)
        if surplus > 0:
            idle = [one for one in self._lanes.values() if not one.users and one is not lane]
            for one in idle[:surplus]:
                del self._lanes[one.exchange]
                one.leave()
        return lane

    async def _open(self, lane: _Lane) -> Held:
        """Open the channel of a lane; what goes wrong with it has nothing to do with the message."""
        try:
            return await lane.open()
        except LinkLostError as error:
            raise error.again(written=False) from error.__cause__
        except ChannelClosedError as error:
            lane.closed = True
            raise _refusal(lane.exchange, error) from error


def _not_taken(
    lane: _Lane, error: ConfirmLateError | ReturnedError | RefusedError | EncodingError, routing_key: str
) -> KernelError:
    """Return what to raise for a message that no queue has, or of which that is not known."""
    exchange = lane.exchange
    match error:
        case ConfirmLateError():
            lane.abandon()
            return UnknownOutcomeError(f'it is not known whether exchange "{exchange}" took a message: {error}')
        case ReturnedError():
            return UnroutableError.naming(routing_key, exchange=exchange)
        case RefusedError():
            full = f'a queue for "{routing_key}" on exchange "{exchange}"' if exchange else f'queue "{routing_key}"'
            return QueueFullError(f"{full} is full, or failed")
        case EncodingError():
            return EncodeError(f'the message for "{routing_key}" cannot be written in AMQP: {error}')


def _refusal(exchange: str, error: ChannelClosedError) -> KernelError:
    if error.code == NOT_FOUND:
        return UnroutableError(f'there is no exchange "{exchange}" to send to: {error.text}')
    return send_error(exchange, error)


def _outcome(
    lane: _Lane, error: LinkLostError | ChannelClosedError, routing_key: str, properties: Properties, body: bytes
) -> KernelError:
    """Return what is known of a message whose channel or connection went before it was confirmed."""
    if isinstance(error, ChannelClosedError) and (
        lane.is_ones_own or is_about(error, routing_key=routing_key, user_id=properties.user_id, size=len(body))
    ):
        return _refusal(lane.exchange, error)
    return UnknownOutcomeError(f'it is not known whether exchange "{lane.exchange}" took a message: {error}')
