"""One life of a connection: its link, and the channels that outlive the calls that asked for them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias, final

import attrs
import trio

from .._errors import ChannelClosedError, LinkError, LinkLostError
from .channel import LinkChannel
from .connect import LinkSettings
from .link import Link, open_link

OnClosed: TypeAlias = Callable[[ChannelClosedError | LinkLostError], None]


@final
@attrs.define(eq=False, repr=False)
class Held:
    """A channel that a task of its session keeps open until it is released."""

    _on_closed: OnClosed
    _channel: LinkChannel | None = attrs.field(default=None, init=False)
    _error: ChannelClosedError | LinkError | None = attrs.field(default=None, init=False)
    _opened: trio.Event = attrs.field(factory=trio.Event, init=False)
    _released: trio.Event = attrs.field(factory=trio.Event, init=False)
    _closed: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def channel(self) -> LinkChannel:
        """The channel; only after `Session.hold` has returned."""
        assert self._channel is not None
        return self._channel

    def release(self) -> None:
        """Have the channel closed: the broker then takes back what is not settled."""
        self._released.set()

    async def wait_closed(self) -> None:
        """Wait until the channel is closed.

        Cancellation: Is a checkpoint.
        """
        await self._closed.wait()

    async def wait_opened(self) -> None:
        """Wait until the channel is open; for the session alone.

        Raises:
            LinkError, ChannelClosedError: if it cannot be opened.
        """
        await self._opened.wait()
        if self._error is not None:
            raise self._error

    async def run(self, link: Link) -> None:  # noqa: ASYNC910  the connection may be gone
        """Keep the channel open; for the session alone."""
        try:
            async with link.open_channel(on_closed=self._note) as self._channel:
                self._opened.set()
                await self._released.wait()
        except (LinkError, ChannelClosedError) as error:
            self._error = error
        finally:
            if self._channel is None and self._error is None:
                self._error = LinkLostError("the connection is being closed")
            self._opened.set()
            self._closed.set()

    def _note(self, error: ChannelClosedError | LinkLostError) -> None:
        """Tell that the channel is gone, and let its task end."""
        self._released.set()
        self._on_closed(error)


@final
@attrs.define(eq=False, repr=False)
class Session:
    """One connection from its opening to its loss."""

    link: Link
    _wanted: trio.MemorySendChannel[Held]

    async def hold(self, *, on_closed: OnClosed) -> Held:
        """Open a channel that stays open until it is released, whoever opened it.

        Raises:
            LinkLostError: if the connection is gone.

        Cancellation: Is a checkpoint. If cancelled, the channel is closed again.
        """
        held = Held(on_closed)
        try:
            await self._wanted.send(held)
            await held.wait_opened()
        except trio.BrokenResourceError:
            raise LinkLostError("the connection is being closed") from None
        except BaseException:
            held.release()
            raise
        return held


@asynccontextmanager
async def open_session(settings: LinkSettings) -> AsyncGenerator[Session]:
    """Connect, and hold channels for the time of the block.

    Raises and Cancellation: as `open_link`. Leaving closes all channels: what they have written is then done.
    """
    wanted, wishes = trio.open_memory_channel[Held](0)
    async with open_link(settings) as link, trio.open_nursery() as nursery:
        nursery.start_soon(_hold_all, link, wishes)
        try:
            yield Session(link, wanted)
        finally:
            # The channels end with the connection: closing them one by one would wait twice for a broker that is silent.
            await link.aclose()  # noqa: ASYNC102  it shields itself
            nursery.cancel_scope.cancel()


async def _hold_all(link: Link, wishes: trio.MemoryReceiveChannel[Held]) -> None:
    async with wishes, trio.open_nursery() as nursery:
        async for held in wishes:
            nursery.start_soon(held.run, link)
