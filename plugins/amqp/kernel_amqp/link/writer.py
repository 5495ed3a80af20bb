"""The sending half of a connection: what writes.

Whoever has something to send puts it into the core's buffer in one piece and rings. At the end of the turn of the
scheduler all there is is written, so many small messages become one send, and no cancellation can cut a message in two.
Only where many publishes or acknowledgements come in one turn, a part of them is written in the middle of it: the broker
works while the others are made. What a stream does not take without waiting is left to a task.
"""

from __future__ import annotations

from typing import Final, final

import attrs
import trio

from kernel import at_turn_end, wake

from ..core import Connection
from .room import Room
from .sockets import socket_of, write_at_once

_SLICE: Final = 64 * 1024
"""Bytes of one send; each that ends shows that the peer still takes something."""
_AT_ONCE: Final = 4096
"""Bytes of publishes that are worth a send of their own in the middle of a turn: about a dozen small messages."""
_ACKS_AT_ONCE: Final = 32
"""Acknowledgements that are worth one: as many deliveries as a dispatcher begins in a turn. The broker may send as many
again, which it does while those who handle the others have their turn; fewer make more work for it and for us."""


@final
@attrs.define(eq=False, repr=False)
class Writer:
    """Writes what the core has to send."""

    _connection: Connection
    _stream: trio.abc.SendStream
    room: Room = attrs.field(factory=Room, init=False)
    """What is left for publishes."""
    taken: int = attrs.field(default=0, init=False)
    """Bytes that were taken to be sent, all that waited each time: what waits since is certainly not sent."""
    sent: int = attrs.field(default=0, init=False)
    """What `taken` was when all of it had been sent for the last time."""
    seen: int = attrs.field(default=0, init=False)
    """Of the bytes that were taken, how many the peer has read for certain."""
    writing_since: float | None = attrs.field(default=None, init=False)
    """When the send that is under way began."""
    _rest: bytes = attrs.field(default=b"", init=False)
    """What was taken and the stream did not take at once: it goes before all else."""
    _acks: int = attrs.field(default=0, init=False)
    """Acknowledgements that wait to be sent."""
    _socket: trio.socket.SocketType | None = attrs.field(init=False)
    """What takes bytes without waiting; None if that can only be waited for."""
    _is_due: bool = attrs.field(default=False, init=False)
    """Whether it will look at the end of this turn whether there is something to write."""
    _token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token, init=False)
    _stopped: bool = attrs.field(default=False, init=False)
    _sleeper: trio.lowlevel.Task | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._socket = socket_of(self._stream)

    @property
    def unseen(self) -> int:
        """Bytes that the peer may still have to read: those that are under way and those that wait to be sent."""
        return self.taken - self.seen + self.room.unsent

    def ring(self) -> None:
        """Say that the core has something to send."""
        if self._socket is None:
            self._rouse()
        elif not self._is_due:
            self._is_due = True
            at_turn_end(self._end_turn)

    def wrote(self, size: int) -> None:
        """Say that a message with a body of this many bytes was put into the core's buffer."""
        room = self.room
        room.fill(size)
        if _AT_ONCE <= room.unsent <= _SLICE and self._write_at_once():
            return
        self.ring()

    def acked(self) -> None:
        """Say that an acknowledgement was put into the core's buffer."""
        self._acks += 1
        if self._acks < _ACKS_AT_ONCE or not self._write_at_once():
            self.ring()

    def note_seen(self, taken: int) -> None:
        """Say that the peer has answered something that was put into the core's buffer when so many bytes were taken."""
        if taken > self.seen:  # noqa: PLR1730  each confirm says so: a call less
            self.seen = taken

    def stop(self) -> None:
        """End `run` once everything is written."""
        self._stopped = True
        self._rouse()

    async def run(self) -> None:
        """Write until stopped.

        Raises:
            trio.BrokenResourceError: if the connection broke.

        Cancellation: Is a checkpoint. If cancelled, a part of what was to be written is.
        """
        await trio.lowlevel.checkpoint()
        while True:
            data = self._take()
            if data:
                await self._send(data)
            elif self._stopped:
                return
            else:
                await self._sleep()

    def _take(self) -> bytes:
        """Take all there is to send."""
        data = self._connection.data_to_send()
        if not self._stopped:  # else it is a last word: what others had put there was thrown away
            self.taken += len(data)
        data, self._rest, self._acks = self._rest + data, b"", 0
        self.room.unsent = len(data)
        return data

    async def _send(self, data: bytes) -> None:  # noqa: ASYNC910  there is data, so it sends
        with memoryview(data) as view:
            for start in range(0, len(data), _SLICE):
                self.writing_since = trio.current_time()
                await self._stream.send_all(view[start : start + _SLICE])
                self.room.unsent -= min(_SLICE, len(data) - start)
                if self.room.is_shut:
                    self.room.grant()
        self.writing_since = None
        self.sent = self.taken

    def _write_at_once(self) -> bool:
        """Write what the stream takes without waiting, if it can do that; return whether nothing is left to be sent."""
        if self._rest or self._stopped or self.room.is_shut or self.writing_since is not None:
            return False  # to `run`, which lets those go on who wait for room
        if self._socket is None:
            return False
        data = self._take()
        if data:
            self._rest = data[write_at_once(self._socket, data) :]
            self.room.unsent = len(self._rest)
        if self._rest:
            return False
        self.sent = self.taken
        return True

    def _rouse(self) -> None:
        """Have the task look, if it sleeps."""
        task = self._sleeper
        if task is not None:
            self._sleeper = None
            wake(task)

    def _end_turn(self) -> None:
        """Write what came up in this turn."""
        self._is_due = False
        if self.writing_since is None and not self._write_at_once():
            self._token.run_sync_soon(self._rouse, idempotent=True)

    async def _sleep(self) -> None:
        self._sleeper = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._wake)

    def _wake(self, _: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED
