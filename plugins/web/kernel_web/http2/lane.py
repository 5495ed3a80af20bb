"""One stream of HTTP/2, in both directions: what a request or a websocket goes over."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Protocol, final

import h2.exceptions

from ..wire.channel import Channel, ClientGoneError
from ..wire.lot import Lot
from .allowance import Allowance
from .protocol import Fields
from .protocol import Protocol as H2Protocol

if TYPE_CHECKING:
    from h2.errors import ErrorCodes


class Carrying(Protocol):
    """The connection that a stream is a part of, as the stream sees it."""

    protocol: H2Protocol
    channel: Channel
    allowance: Allowance

    def room(self, stream_id: int, wanted: int) -> int:
        """Return how many bytes may be sent on a stream now."""
        ...

    def write_deadline(self) -> float:
        """Return when a client must have taken the next piece."""
        ...

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Let the client send as much again."""

    def let_finish(self, stream_id: int) -> None:
        """Let the client send the rest of a body that nobody wants."""

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        """End a stream whose answer is not complete."""

    async def flush(self) -> None:
        """Send what h2 has to say; waits while the client does not take it."""

    def flush_soon(self) -> bool:
        """Send what h2 has to say once others have had their turn; return whether that will be so."""
        ...

    def flush_nowait(self) -> None:
        """Send what h2 has to say, as far as the client takes it at once."""


@final
class Lane:
    """A stream. What comes waits here; flow control bounds it, since only what is taken is acknowledged."""

    __slots__ = (
        "_connection",
        "_lot",
        "_pieces",
        "arrived",
        "ended",
        "id",
        "is_waiting",
        "lost",
        "queued",
        "write_until",
    )

    def __init__(self, connection: Carrying, stream_id: int) -> None:
        self._connection = connection
        self.id = stream_id
        self._pieces: deque[bytes] = deque()
        self.queued = 0
        """Bytes that nobody has taken."""
        self.arrived = 0
        """Bytes that came so far."""
        self.ended = False
        """The client has sent everything."""
        self.lost = False
        """Nothing can be sent any more."""
        self.is_waiting = False
        """Whether somebody waits for the client to send."""
        self.write_until = inf
        """When the client must have taken something more."""
        self._lot = Lot()

    # --- from the client ----------------------------------------------------------------------------------------

    def put(self, data: bytes) -> None:
        """Take what has come."""
        self._pieces.append(data)
        self.queued += len(data)
        self.arrived += len(data)
        self.wake()

    def end(self) -> None:
        """Take note that nothing more comes."""
        self.ended = True
        self.wake()

    def lose(self) -> None:
        """Take note that the stream is over, however it ended. May be called again."""
        self.lost = True
        self.write_until = inf
        self.wake()

    def take(self) -> bytes:
        """Return what has come, and let the client send as much again."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self.queued = 0
        if data:
            self._connection.acknowledge(self.id, len(data))
        return data

    async def wait(self) -> None:
        """Wait until something has changed. Is a checkpoint."""
        self.is_waiting = True
        try:
            await self._lot.park()
        finally:
            self.is_waiting = False

    def wake(self) -> None:
        """Let whoever waits look again."""
        self._lot.unpark_all()

    # --- to the client ------------------------------------------------------------------------------------------

    def put_fields(self, fields: Fields, *, is_last: bool = False) -> None:
        """Send header fields with what is sent next.

        Raises:
            ClientGoneError: if the client will not get them.
        """
        self._check()
        if is_last and not self.ended:
            self._connection.let_finish(self.id)
        try:
            self._connection.protocol.send_headers(self.id, fields, end_stream=is_last)
        except h2.exceptions.ProtocolError as error:
            self.lose()
            raise ClientGoneError("the client is gone") from error

    async def send(self, data: bytes, *, is_last: bool = False) -> None:  # noqa: ASYNC910  suspends only to wait
        """Send bytes; waits while the client does not take them.

        Raises:
            ClientGoneError: if the client will not get them.

        Cancellation: If cancelled, some of them may have been sent: the stream cannot be used any more.
        """
        at, size = 0, len(data)
        while True:
            self._check()
            piece = self._connection.room(self.id, size - at)
            if piece or at == size:
                self._put_data(data[at : at + piece], is_last=is_last and at + piece == size)
                at += piece
                if is_last and at == size and self._connection.flush_soon():
                    return  # noqa: ASYNC910  as above
                await self._connection.flush()
                if at == size:
                    return
            else:
                await self._wait_for_window()

    def put_data(self, data: bytes, *, is_last: bool = False) -> bool:
        """Send bytes at once; return whether the client takes as many."""
        if self.lost or self._connection.room(self.id, len(data)) < len(data):
            return False
        self._put_data(data, is_last=is_last)
        self._connection.flush_nowait()
        return True

    def _put_data(self, data: bytes, *, is_last: bool) -> None:
        if not data and not is_last:
            return
        if is_last and not self.ended:
            self._connection.let_finish(self.id)
        try:
            self._connection.protocol.send_data(self.id, data, end_stream=is_last)
        except h2.exceptions.ProtocolError as error:
            self.lose()
            raise ClientGoneError("the client is gone") from error
        self._connection.allowance.earn(len(data))

    def flush(self) -> None:
        """Send what was put here, as far as the client takes it at once; the rest leaves later."""
        self._connection.flush_nowait()

    async def _wait_for_window(self) -> None:
        # The deadline is for the next piece, and not for all of it: a slow client that takes something is served.
        self.write_until = self._connection.write_deadline()
        try:
            await self._lot.park()
        finally:
            self.write_until = inf

    def _check(self) -> None:
        if self.lost or self._connection.channel.closed:
            raise ClientGoneError("the client is gone")

    def reset(self, code: ErrorCodes) -> None:
        """Make the client notice that this is not complete."""
        self._connection.reset(self.id, code)
        self.lose()
