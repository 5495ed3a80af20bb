"""What one connection of HTTP/2 says: what its lanes ask h2 to, and when that leaves."""

from __future__ import annotations

from collections.abc import Callable, Sized
from contextlib import suppress
from typing import Final, final

import h2.exceptions
import trio
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame

from ..asgi.shared import Shared
from ..wire.channel import Channel, ClientGoneError
from .allowance import Allowance
from .protocol import build_protocol

PLENTY: Final = 2**30
"""Bytes that a client may send on all streams of a connection together, and on one whose rest is dropped. What is kept is
bounded by the windows of the others; one that nobody reads for a while must not use up what all share."""


@final
class Outlet:
    """The part of a connection that its lanes see."""

    __slots__ = (
        "_is_due",
        "_running",
        "_shared",
        "_tell",
        "allowance",
        "channel",
        "nursery",
        "protocol",
        "writers",
    )

    def __init__(self, shared: Shared, channel: Channel, running: Sized, tell: Callable[[], None]) -> None:
        """Begin to speak.

        Args:
            shared: What all connections share.
            channel: The client's bytes.
            running: The requests of the connection: what is ready for one waits only for others.
            tell: Called when the last of an answer has left.
        """
        self._shared = shared
        self._running = running
        self._tell = tell
        self._is_due = False
        """Whether a task is about to send what h2 has to say."""
        self.allowance = Allowance()
        self.channel = channel
        self.nursery: trio.Nursery | None = None
        """Of the connection, once it runs."""
        self.protocol = build_protocol(shared.config.max_header_bytes)
        self.writers = 0
        """Tasks that are about to send, or do."""

    def room(self, stream_id: int, wanted: int) -> int:
        """Return how many bytes may be sent on a stream now."""
        try:
            window = self.protocol.local_flow_control_window(stream_id)
        except h2.exceptions.ProtocolError:
            return 0
        return max(0, min(wanted, window, self.protocol.max_outbound_frame_size))

    def write_deadline(self) -> float:
        """Return when a client must have taken the next piece."""
        return self._shared.clock.now + self._shared.config.write_timeout

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Let the client send as much again."""
        try:
            self.protocol.acknowledge_received_data(size, stream_id)
        except h2.exceptions.ProtocolError:
            return
        self.flush_nowait()

    def let_finish(self, stream_id: int) -> None:
        """Let the client send the rest of a body that nobody wants, before it is told the end of its answer."""
        with suppress(h2.exceptions.ProtocolError):
            self.protocol.increment_flow_control_window(PLENTY, stream_id)

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        """End a stream whose answer is not complete. May be called again."""
        try:
            self.protocol.reset_stream(stream_id, code)
        except h2.exceptions.ProtocolError:
            return
        self.flush_nowait()

    async def flush(self) -> None:  # noqa: ASYNC910  suspends only to wait
        """Send what h2 has to say; waits while the client does not take it.

        Raises:
            ClientGoneError: if it never will.
        """
        data = self.protocol.data_to_send()
        if data:
            await self.channel.write(data)

    def flush_soon(self) -> bool:
        """Send what h2 has to say once other requests had their turn; return whether that will be so.

        The last of many answers that are ready in one turn leaves in one piece. Who has more to say sends by itself, so
        that what gathers here has a bound.
        """
        if len(self._running) < 2 or self.channel.has_unsent or self.nursery is None:
            return False
        if not self._is_due:
            self._is_due = True
            self.writers += 1
            self.nursery.start_soon(self._write)
        return True

    async def _write(self) -> None:  # noqa: ASYNC910  suspends only to wait
        self._is_due = False
        try:
            await self.flush()
        except ClientGoneError:
            pass
        finally:
            self.writers -= 1
            self._tell()

    def flush_nowait(self) -> None:
        """Send what h2 has to say, as far as the client takes it at once; the rest leaves later."""
        self.channel.write_nowait(self.protocol.data_to_send())

    def say_goodbye(self) -> None:
        """Tell the client to open no more streams here; those it has go on."""
        # h2 can only say so by ending the connection, so the frame is made by hand.
        last = self.protocol.highest_inbound_stream_id
        frame = GoAwayFrame(stream_id=0, last_stream_id=last, error_code=int(ErrorCodes.NO_ERROR))
        self.channel.write_nowait(self.protocol.data_to_send() + frame.serialize())
