"""The sending half of a connection: what several tasks say in one turn goes out in one piece.

What the socket does not take without waiting is left to a task; a stream of TLS is always left to it.
"""

from __future__ import annotations

import os
from typing import Final, final

import attrs
import trio

from kernel import at_turn_end, wake

_SLICE: Final = 64 * 1024
"""Bytes of one send; each that ends shows that the peer still takes something."""
_FULL: Final = 1024 * 1024
"""Bytes that may wait to be sent before those who send messages wait."""
_EARLY: Final = 16 * 1024
"""Bytes that are worth a send of their own in the middle of a turn: the server works while the rest is made."""


@final
@attrs.define(eq=False, repr=False)
class Writer:
    """Writes what it is given, in that order."""

    _stream: trio.abc.SendStream
    taken: int = attrs.field(default=0, init=False)
    """Bytes that were given to it so far."""
    sent: int = attrs.field(default=0, init=False)
    """Bytes of them that the stream has taken."""
    sent_at: float = attrs.field(factory=trio.current_time, init=False)
    """When the stream last took something."""
    writing_since: float | None = attrs.field(default=None, init=False)
    """When the send that is under way began."""
    _waiting: bytearray = attrs.field(factory=bytearray, init=False)
    _socket: trio.socket.SocketType | None = attrs.field(init=False)
    _is_due: bool = attrs.field(default=False, init=False)
    """Whether it will look at the end of this turn whether there is something to write."""
    _token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token, init=False)
    _stopped: bool = attrs.field(default=False, init=False)
    _sleeper: trio.lowlevel.Task | None = attrs.field(default=None, init=False)
    _room: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def __attrs_post_init__(self) -> None:
        is_plain = isinstance(self._stream, trio.SocketStream) and os.name == "posix"
        self._socket = self._stream.socket if is_plain and isinstance(self._stream, trio.SocketStream) else None

    def write(self, data: bytes) -> None:
        """Take some bytes, to be written as soon as that can be."""
        self._waiting += data
        self.taken += len(data)
        if len(self._waiting) >= _EARLY and self.writing_since is None:
            self._write_at_once()
        if self._waiting and not self._is_due:
            self._is_due = True
            at_turn_end(self._end_turn)

    @property
    def is_full(self) -> bool:
        """Whether those who send messages have to wait."""
        return self.taken - self.sent >= _FULL

    async def wait_room(self) -> None:  # noqa: ASYNC910  each message asks
        """Wait while too much waits to be sent.

        Cancellation: Is a checkpoint if it has to wait.
        """
        while self.is_full and not self._stopped:
            await self._room.park()

    def stop(self) -> None:
        """End `run` once everything is written."""
        self._stopped = True
        self._room.unpark_all()
        self._rouse()

    async def run(self) -> None:
        """Write until stopped.

        Raises:
            trio.BrokenResourceError: if the connection broke.

        Cancellation: Is a checkpoint. If cancelled, a part of what was to be written is.
        """
        await trio.lowlevel.checkpoint()
        while self._waiting or not self._stopped:
            if self._waiting:
                data, self._waiting = bytes(self._waiting), bytearray()
                await self._send(data)
            else:
                self._sleeper = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abandon)

    async def _send(self, data: bytes) -> None:  # noqa: ASYNC910  there is data, so it sends
        with memoryview(data) as view:
            for start in range(0, len(data), _SLICE):
                self.writing_since = trio.current_time()
                await self._stream.send_all(view[start : start + _SLICE])
                self._note_sent(min(_SLICE, len(data) - start))
        self.writing_since = None

    def _write_at_once(self) -> None:
        """Write what the socket takes without waiting."""
        if self._socket is None:
            return
        try:
            count = os.write(self._socket.fileno(), self._waiting)
        except OSError:  # it may be full, or broken: who waits for it finds out
            return
        del self._waiting[:count]
        self._note_sent(count)

    def _note_sent(self, count: int) -> None:
        self.sent += count
        self.sent_at = trio.current_time()
        if self._room and not self.is_full:
            self._room.unpark_all()

    def _end_turn(self) -> None:
        """Write what came up in this turn; it must not wake anybody."""
        self._is_due = False
        if self.writing_since is None and not self._room:
            self._write_at_once()
        if self._waiting:
            self._token.run_sync_soon(self._rouse, idempotent=True)

    def _rouse(self) -> None:
        task, self._sleeper = self._sleeper, None
        if task is not None:
            wake(task)

    def _abandon(self, _: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED
