"""Takes messages out of one queue, and carries them elsewhere: confirmed there before they are acknowledged here."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final, final

import attrs
import trio
from pamqp import commands

from kernel.errors import KernelError, QueueFullError, UnroutableError

from .._errors import ChannelClosedError, RefusedError, ReturnedError
from ..broker.conflicts import consume_error
from ..broker.declaring import queue_look
from ..core import Delivered, Properties, TooLarge
from ..link.channel import LinkChannel
from ..link.link import Link

_TAG: Final = "kernel rabbitmq"
_PREFETCH: Final = 100
_QUIET: Final = 2.0
"""Seconds in which nothing comes though something should be there: others have it in hand."""
_SERVED_FIRST: Final[Mapping[str, object]] = MappingProxyType({"x-priority": 1000})
"""What makes this consumer be served before those of services, which are not stopped for it."""


@final
@attrs.frozen(kw_only=True, repr=False)
class Letter:
    """A message as it is sent on."""

    exchange: str
    """Empty for the queue that `routing_key` names."""
    routing_key: str
    properties: Properties
    body: bytes


def counted(number: int, noun: str) -> str:
    """Return a number of things in words."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


@final
@attrs.frozen
class Depth:
    """What is in a queue."""

    ready: int
    consumers: int

    def __str__(self) -> str:
        waiting = f"{counted(self.ready, 'message')} that {'waits' if self.ready == 1 else 'wait'}"
        return f"{waiting} and {counted(self.consumers, 'consumer')}" if self.consumers else waiting


@final
@attrs.define(eq=False, repr=False)
class Taking:
    """What comes out of a queue, one message after the other."""

    _channel: LinkChannel
    _arrived: deque[Delivered | TooLarge] = attrs.field(factory=deque[Delivered | TooLarge], init=False)
    _open: dict[int, None] = attrs.field(factory=dict[int, None], init=False)
    """Tags of what has come and is not done."""
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def take_in(self, message: Delivered | TooLarge) -> None:
        """Take what the broker brings: as many as were asked for, at most."""
        self._open[message.delivery_tag] = None
        self._arrived.append(message)
        self._waiting.unpark_all()

    async def take(self) -> Delivered | TooLarge | None:
        """Return the next message; None if nothing comes for a time.

        Cancellation: Is a checkpoint.
        """
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(_QUIET):
            while not self._arrived:
                await self._waiting.park()
        return self._arrived.popleft() if self._arrived else None

    def done(self, message: Delivered | TooLarge) -> None:
        """Have the broker forget a message."""
        del self._open[message.delivery_tag]
        self._channel.ack(message.delivery_tag)

    def hand_back(self) -> None:
        """Return what is not done, by `basic.nack`: a channel that closes counts as a try at quorum queues."""
        for tag in self._open:
            self._channel.nack(tag, requeue=True)


async def depth(  # noqa: ASYNC910  it asks the broker
    link: Link, queue: str
) -> Depth | None:
    """Return what is in a queue; None if there is none of that name.

    Cancellation: Is a checkpoint.
    """
    try:
        async with link.open_channel() as channel:
            answer = await channel.call(queue_look(queue))
    except ChannelClosedError:
        return None  # noqa: ASYNC910  it comes from the broker
    assert isinstance(answer, commands.Queue.DeclareOk)
    return Depth(answer.message_count or 0, answer.consumer_count or 0)


@asynccontextmanager
async def taking(
    link: Link, queue: str, *, prefetch: int = _PREFETCH, arguments: Mapping[str, object] = _SERVED_FIRST
) -> AsyncGenerator[Taking]:
    """Take messages of a queue for the time of the block; what is not done goes back when it is left.

    Raises:
        ConflictError: if there is no such queue, or another consumer has it for itself alone.
    """
    try:
        async with link.open_channel() as channel:
            source = Taking(channel)
            await channel.call(commands.Basic.Qos(prefetch_count=prefetch))
            await channel.consume(
                queue,
                consumer_tag=_TAG,
                on_delivery=source.take_in,
                on_cancel=lambda _: None,
                arguments=arguments,
            )
            yield source
            await channel.cancel_consumer(_TAG)
            source.hand_back()
    except ChannelClosedError as error:
        raise consume_error(queue, error) from error


async def carry(link: Link, queue: str, write: Callable[[Delivered], Letter], *, limit: int) -> int:
    """Send messages on, at most `limit`; returns how many. The rest stays where it is.

    Raises:
        KernelError: if one cannot be read, or is not taken where it goes; it stays, and those before it are carried.
            At the end, if there are some that are too large; they stay, and all others are carried.

    Cancellation: Is a checkpoint. What is in hand may be there twice.
    """
    done, large = 0, list[TooLarge]()
    async with taking(link, queue, prefetch=min(limit, _PREFETCH) or 1) as source, link.open_channel() as sending:
        await sending.confirm_select()
        while done < limit and (message := await source.take()) is not None:
            if isinstance(message, TooLarge):
                large.append(message)
                continue
            await _send(sending, write(message))
            source.done(message)
            done += 1
    if large:
        raise KernelError(_staying(done, large))
    return done


def _staying(done: int, large: Sequence[TooLarge]) -> str:
    most = max(message.size for message in large)
    return (
        f"{done} messages moved; {len(large)} stay, since they are larger than `max_message_bytes` of the driver, with "
        f"{most} bytes at most: let it be larger for this, or `purge` the queue of what is left"
    )


async def _send(channel: LinkChannel, letter: Letter) -> None:
    try:
        await channel.publish(
            exchange=letter.exchange,
            routing_key=letter.routing_key,
            properties=letter.properties,
            body=letter.body,
            mandatory=True,
        )
    except ReturnedError as error:
        raise UnroutableError.naming(letter.routing_key, exchange=letter.exchange) from error
    except RefusedError as error:
        raise QueueFullError(f'the queue for "{letter.routing_key}" is full') from error
