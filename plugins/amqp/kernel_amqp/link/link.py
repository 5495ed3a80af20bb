"""One connection to a broker: the tasks that read, write and watch it, from its opening to its end."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TypeAlias, final

import attrs
import trio
from pamqp import commands

from .._errors import ChannelClosedError, LinkError, LinkLostError
from ..core import (
    Blocked,
    ChannelClosed,
    ChannelOpened,
    Closed,
    Confirmed,
    Connection,
    ConsumerCancelled,
    Delivered,
    Event,
    LocalError,
    Opened,
    Replied,
    Returned,
    TooLarge,
    Unblocked,
)
from .channel import ClosedError, LinkChannel
from .connect import CLOSE_TIMEOUT, Joined, LinkSettings, join
from .heartbeat import Heartbeat
from .probe import Probe
from .sockets import receive
from .writer import Writer

_OfChannel: TypeAlias = ChannelOpened | Replied | TooLarge | Returned | ConsumerCancelled | ChannelClosed
_Rare: TypeAlias = Closed | Blocked | Unblocked | Opened | _OfChannel


@final
@attrs.define(eq=False, repr=False)
class Link:
    """One open connection. Once lost it stays so: whoever needs another opens another."""

    _joined: Joined
    _close_timeout: float = CLOSE_TIMEOUT
    lost: LinkLostError | None = attrs.field(default=None, init=False)
    """Why the connection is gone; None while it is there."""
    declaring: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    """Whoever declares has it: where the broker answers by closing the connection, it is known whose fault it is."""
    _connection: Connection = attrs.field(init=False)
    _stream: trio.abc.Stream = attrs.field(init=False)
    _writer: Writer = attrs.field(init=False)
    _heartbeat: Heartbeat = attrs.field(init=False)
    _prober: Probe = attrs.field(init=False)
    _life: trio.CancelScope = attrs.field(factory=lambda: trio.CancelScope(shield=True), init=False)
    """Shielded, so that what is written while everything around is cancelled still goes out; `aclose` ends it."""
    _ended: trio.Event = attrs.field(factory=trio.Event, init=False)
    _channels: dict[int, LinkChannel] = attrs.field(factory=dict[int, LinkChannel], init=False)
    _freed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    """Those who wait for a channel."""

    def __attrs_post_init__(self) -> None:
        self._connection = self._joined.connection
        self._stream = self._joined.stream
        self._writer = Writer(self._connection, self._stream)
        interval = self._connection.heartbeat
        self._prober = Probe(self._writer, interval, self._joined.round_trip)
        self._heartbeat = Heartbeat(self._connection, self._writer, self._prober, interval)

    @property
    def where(self) -> str:
        """The `host:port` that it is connected to."""
        return self._joined.where

    @property
    def version(self) -> tuple[int, ...]:
        """The version that the broker says it has, such as `(3, 10, 8)`; empty if it says none."""
        told = self._connection.server_properties.get("version")
        return tuple(map(int, re.findall(r"\d+", str(told))[:3])) if told else ()

    @property
    def channel_max(self) -> int:
        """How many channels there may be at a time."""
        return self._connection.channel_max

    @property
    def blocked(self) -> str:
        """Why the broker takes no messages, in its words; empty if it does."""
        return self._writer.room.blocked

    def sweep(self) -> None:
        """Fail publishes that have had no answer for too long; to be called from time to time."""
        now = trio.current_time()
        for channel in self._channels.values():
            channel.sweep(now)

    async def wait_lost(self) -> LinkLostError:
        """Wait until the connection is gone, and return why.

        Cancellation: Is a checkpoint.
        """
        await self._ended.wait()
        assert self.lost is not None
        return self.lost.again(written=False)

    def open_channel(
        self, *, on_closed: Callable[[ClosedError], None] | None = None
    ) -> AbstractAsyncContextManager[LinkChannel]:
        """Open a channel for the time of the block.

        Leaving it closes the channel: the broker has then seen all that was written to it, and takes back what was
        delivered and not settled.

        Args:
            on_closed: Called once, from the task that reads, if the channel goes for another reason than leaving the
                block: it only notes and wakes.

        Waits while all channels of the connection are in use.

        Raises:
            LinkLostError: if the connection is gone.

        Cancellation: Is a checkpoint. Leaving is shielded for at most 2 s.
        """
        return self._open_channel(on_closed)

    async def run(self) -> None:
        """Read, write and watch until the connection is gone; for `open_link` alone.

        Cancellation: Is a checkpoint.
        """
        try:
            with self._life:
                async with trio.open_nursery(strict_exception_groups=True) as nursery:
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._watch)
                    nursery.start_soon(self._probe)
                    await self._write()
                    nursery.cancel_scope.cancel()
        finally:
            self._lose("the tasks that serve it have ended")
            with trio.CancelScope(shield=True):  # it does not wait, but a Cancelled here would hide what was raised
                await trio.aclose_forcefully(self._stream)

    async def aclose(self) -> None:
        """Say goodbye and end; for `open_link` alone.

        Cancellation: Shielded for at most the seconds of `close_timeout`.
        """
        if self.lost is None:
            for channel in self._channels.values():
                channel.lose(self._loss("its link was left"))
            self._connection.close()
            self._writer.ring()
            with trio.move_on_after(self._close_timeout, shield=True):
                await self._ended.wait()
        self._life.cancel()
        await trio.lowlevel.cancel_shielded_checkpoint()

    @asynccontextmanager
    async def _open_channel(self, on_closed: Callable[[ClosedError], None] | None) -> AsyncGenerator[LinkChannel]:
        channel = await self._next_channel(on_closed)
        try:
            await channel.open()
            yield channel
        finally:
            await channel.aclose()

    async def _next_channel(self, on_closed: Callable[[ClosedError], None] | None) -> LinkChannel:
        while self.lost is None and len(self._channels) >= self.channel_max:
            await self._freed.park()
        return self._new_channel(on_closed)  # noqa: ASYNC910  to open it is a checkpoint

    def _new_channel(self, on_closed: Callable[[ClosedError], None] | None) -> LinkChannel:
        if self.lost is not None:
            raise self.lost.again(written=False)
        try:
            core = self._connection.open_channel()
        except LocalError as error:
            raise LinkError(f"{self.where} opens no channel: {error}") from error
        channel = self._channels[core.number] = LinkChannel(core, self._writer, on_closed)
        return channel

    async def _read(self) -> None:
        await trio.lowlevel.checkpoint()
        try:
            self._take(self._joined.early)
            while self.lost is None:
                data = await receive(self._stream)
                self._heartbeat.hear(len(data))
                if not data:
                    self._break("the broker closed the connection without a word")
                self._take(self._connection.receive(bytes(data)))
                if self._connection.has_data_to_send:  # what the core answers by itself
                    self._writer.ring()
        except trio.BrokenResourceError as error:
            self._break(f"the connection broke: {error.__cause__ or error}", error)

    async def _write(self) -> None:  # noqa: ASYNC910  the writer is one
        try:
            await self._writer.run()
        except trio.BrokenResourceError as error:
            self._break(f"the connection broke: {error.__cause__ or error}", error)

    async def _watch(self) -> None:
        self._break(await self._heartbeat.wait_dead())

    async def _probe(self) -> None:
        """Ask the broker now and then, where there are heartbeats and a channel to spare for that."""
        await trio.sleep(self._connection.heartbeat / 2)
        if not self._connection.heartbeat or self._connection.channel_max == 1:
            return
        with suppress(LinkError):  # without a channel, it is left to the broker to find out that it does not hear us
            await self._prober.run(self._new_channel(None))

    def _take(self, events: Iterable[Event]) -> None:
        """Hand each event to whom it is for. Deliveries and confirms come first, since nearly all are of these."""
        channels = self._channels
        for event in events:
            if isinstance(event, Delivered):
                channels[event.channel].deliver(event)
            elif isinstance(event, Confirmed):
                channels[event.channel].confirm(event.first, event.last, taken=event.taken)
            else:
                self._take_rare(event)

    def _take_rare(self, event: _Rare) -> None:
        match event:
            case Closed():
                self._end(event)
            case Blocked():
                self._writer.room.block(event.reason or "the broker did not say why")
            case Unblocked():
                self._writer.room.block("")
            case Opened():
                pass
            case _:
                self._take_of_channel(event)

    def _end(self, event: Closed) -> None:
        """Let the writer say the last words, then end."""
        self._lose(f"it was closed: {event.code} {event.text}", code=event.code, method=event.method)
        self._life.deadline = trio.current_time() + self._close_timeout

    def _break(self, reason: str, cause: BaseException | None = None) -> None:
        """End at once: nothing that is still to be written would arrive."""
        self._lose(reason, cause)
        self._life.cancel()

    def _lose(self, reason: str, cause: BaseException | None = None, *, code: int = 0, method: str = "") -> None:
        if self.lost is not None:
            return
        self.lost = self._loss(reason, code=code, method=method)
        self.lost.__cause__ = cause
        for channel in self._channels.values():
            channel.lose(self.lost)
        self._channels.clear()
        self._freed.unpark_all()
        self._writer.stop()
        self._ended.set()

    def _take_of_channel(self, event: _OfChannel) -> None:
        channel = self._channels[event.channel]
        match event:
            case ChannelOpened():
                channel.opened()
            case Replied():
                self._take_reply(channel, event)
            case TooLarge():
                channel.deliver(event)
            case Returned():
                channel.give_back(event)
            case ConsumerCancelled():
                channel.cancelled(event.consumer_tag)
            case ChannelClosed():
                self._forget(event.channel)
                channel.lose(ChannelClosedError(event.code, event.text, event.method))

    def _take_reply(self, channel: LinkChannel, event: Replied) -> None:
        if isinstance(event.method, commands.Channel.CloseOk):
            self._forget(event.channel)
            channel.left()
        else:
            channel.replied(event.method)

    def _forget(self, number: int) -> None:
        """Let somebody else have the number of a channel."""
        del self._channels[number]
        self._freed.unpark()

    def _loss(self, reason: str, *, code: int = 0, method: str = "") -> LinkLostError:
        return LinkLostError(f"the connection to {self._joined.where} is gone: {reason}", code=code, method=method)


@asynccontextmanager
async def open_link(settings: LinkSettings) -> AsyncGenerator[Link]:
    """Connect to a broker for the time of the block.

    The body goes on when the connection is lost; `Link.lost` and `Link.wait_lost` tell.

    Raises:
        LinkError: if no host answers; says why for each.
        LoginRefusedError: if the broker does not let this user in.

    Cancellation: Is a checkpoint. Leaving is shielded for at most the seconds of `close_timeout`.
    """
    joined = await join(settings)
    async with link_on(joined, close_timeout=settings.close_timeout) as link:
        yield link


@asynccontextmanager
async def link_on(joined: Joined, *, close_timeout: float = CLOSE_TIMEOUT) -> AsyncGenerator[Link]:
    """Run the link on a connection that is open, as `open_link` does; closes its stream."""
    link = Link(joined, close_timeout)
    try:
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            nursery.start_soon(link.run)
            try:
                yield link
            finally:
                await link.aclose()  # noqa: ASYNC102  it shields itself
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1 and isinstance(group.exceptions[0], Exception):
            error = group.exceptions[0]
            raise error from error.__cause__
        raise
