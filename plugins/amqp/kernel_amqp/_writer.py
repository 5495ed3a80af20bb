"""The sending half of a connection: the one task that writes, and the bound on what waits to be written.

Whoever has something to send puts it into the core's buffer in one piece and rings. The writer takes all there is, once
in a turn of the scheduler, so many small messages become one send, and no cancellation can cut a message in two. Only
where many publishes or acknowledgements come in one turn, a part of them is written at once: the broker works while
the others are made.
"""

from __future__ import annotations

import os
from typing import Final, final

import attrs
import trio

from kernel import wake

from .core import Connection

MAX_UNSENT: Final = 1024 * 1024
"""Bytes that may wait to be written before publishes have to wait. One message may exceed it."""
_SLICE: Final = 64 * 1024
"""Bytes of one send; each that ends shows that the peer still takes something."""
_FRAMING: Final = 128
"""Bytes that a message has besides its body, about."""
_AT_ONCE: Final = 4096
"""Bytes of publishes that are worth a send of their own in the middle of a turn: about a dozen small messages."""
_ACKS_AT_ONCE: Final = 32
"""Acknowledgements that are worth one: as many deliveries as a dispatcher begins in a turn. The broker may send as many
again, which it does while those who handle the others have their turn; fewer make more work for it and for us."""


@final
@attrs.define(eq=False)
class _Wish:
    """A publish that waits for its turn."""

    owner: object
    size: int
    task: trio.lowlevel.Task
    is_granted: bool = False


@final
@attrs.define(eq=False)
class Writer:
    """Writes what the core has to send, and holds publishes back while the peer does not want them."""

    _connection: Connection
    _stream: trio.abc.SendStream
    taken: int = attrs.field(default=0, init=False)
    """Bytes that were taken to be sent, all that waited each time: what waits since is certainly not sent."""
    sent: int = attrs.field(default=0, init=False)
    """What `taken` was when all of it had been sent for the last time."""
    seen: int = attrs.field(default=0, init=False)
    """Of the bytes that were taken, how many the peer has read for certain."""
    writing_since: float | None = attrs.field(default=None, init=False)
    """When the send that is under way began."""
    blocked: str = attrs.field(default="", init=False)
    """Why the broker takes no messages; empty if it does."""
    is_shut: bool = attrs.field(default=False, init=False)
    """Whether a publish has to wait for its turn: there is no room, or others wait already."""
    _rest: bytes = attrs.field(default=b"", init=False)
    """What was taken and the stream did not take at once: it goes before all else."""
    _unsent: int = attrs.field(default=0, init=False)
    _acks: int = attrs.field(default=0, init=False)
    """Acknowledgements that wait to be sent."""
    _stopped: bool = attrs.field(default=False, init=False)
    _sleeper: trio.lowlevel.Task | None = attrs.field(default=None, init=False)
    _promised: int = attrs.field(default=0, init=False)
    """Bytes of those who may write and have not yet."""
    _wishes: dict[_Wish, None] = attrs.field(factory=dict[_Wish, None], init=False)
    """Those who wait, in their order."""

    @property
    def unseen(self) -> int:
        """Bytes that the peer may still have to read: those that are under way and those that wait to be sent."""
        return self.taken - self.seen + self._unsent

    def ring(self) -> None:
        """Say that the core has something to send."""
        task = self._sleeper
        if task is not None:
            self._sleeper = None
            wake(task)

    def wrote(self, size: int) -> None:
        """Say that a message with a body of this many bytes was put into the core's buffer."""
        self._unsent += size + _FRAMING
        if _AT_ONCE <= self._unsent <= _SLICE and self._write_at_once():
            return
        if self._unsent >= MAX_UNSENT:
            self.is_shut = True
        task = self._sleeper
        if task is not None:
            self._sleeper = None
            wake(task)

    def acked(self) -> None:
        """Say that an acknowledgement was put into the core's buffer."""
        self._acks += 1
        if self._acks < _ACKS_AT_ONCE or not self._write_at_once():
            self.ring()

    async def wait_turn(self, owner: object, size: int) -> bool:
        """Wait until a message with a body of this many bytes may be written; first come, first served.

        Returns:
            True if it may: room for it is kept until `redeem` is called. False if its owner was dismissed.

        Cancellation: Is a checkpoint if it has to wait.
        """
        if not self.is_shut:
            self._promised += size + _FRAMING
            return True  # noqa: ASYNC910  whoever asks has had one
        wish = _Wish(owner, size, trio.lowlevel.current_task())
        self._wishes[wish] = None

        def abandon(_: object) -> trio.lowlevel.Abort:
            del self._wishes[wish]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abandon)
        return wish.is_granted

    def note_seen(self, taken: int) -> None:
        """Say that the peer has answered something that was put into the core's buffer when so many bytes were taken."""
        if taken > self.seen:  # noqa: PLR1730  each confirm says so: a call less
            self.seen = taken

    def redeem(self, size: int) -> None:
        """Give back the room that was kept for a message, whether it was written or not."""
        self._promised -= size + _FRAMING
        self._grant()

    def dismiss(self, owner: object) -> None:
        """Wake those of one owner who wait for their turn: it will not come."""
        for wish in [wish for wish in self._wishes if wish.owner is owner]:
            del self._wishes[wish]
            wake(wish.task)
        self._grant()

    def block(self, reason: str) -> None:
        """Hold publishes back until the broker says otherwise; an empty reason lets them go on."""
        self.blocked = reason
        self._grant()

    def stop(self) -> None:
        """End `run` once everything is written."""
        self._stopped = True
        self.ring()

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
        self._unsent = len(data)
        return data

    async def _send(self, data: bytes) -> None:  # noqa: ASYNC910  there is data, so it sends
        with memoryview(data) as view:
            for start in range(0, len(data), _SLICE):
                self.writing_since = trio.current_time()
                await self._stream.send_all(view[start : start + _SLICE])
                self._unsent -= min(_SLICE, len(data) - start)
                if self.is_shut:
                    self._grant()
        self.writing_since = None
        self.sent = self.taken

    def _write_at_once(self) -> bool:
        """Write what the stream takes without waiting, if it can do that; return whether nothing is left to be sent."""
        if self._rest or self._stopped or self.is_shut or self.writing_since is not None:
            return False  # to `run`, which lets those go on who wait for room
        if not isinstance(self._stream, trio.SocketStream):  # TLS: what it makes of the bytes can only be awaited
            return False
        data = self._take()
        try:
            written = os.write(self._stream.socket.fileno(), data)
        except OSError:  # it takes nothing now, or never again: `run` waits, or finds out
            written = 0
        self._rest = data[written:]
        self._unsent = len(self._rest)
        if self._rest:
            return False
        self.sent = self.taken
        return True

    async def _sleep(self) -> None:
        self._sleeper = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._wake)

    def _wake(self, _: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _grant(self) -> None:
        """Let as many go on as there is room for."""
        while self._wishes and self._has_room():
            wish = next(iter(self._wishes))
            del self._wishes[wish]
            wish.is_granted = True
            self._promised += wish.size + _FRAMING
            wake(wish.task)
        self.is_shut = bool(self._wishes) or not self._has_room()

    def _has_room(self) -> bool:
        return not self.blocked and self._unsent + self._promised < MAX_UNSENT
