"""A socket of ZeroMQ under trio: waits on its descriptor, and loses nothing when it is cancelled.

The descriptor becomes readable when something has changed, in whichever direction, and any call of libzmq may take note
of the change: so whoever calls it looks at what can be done now, and wakes those who waited for that. Of those who wait,
one waits on the descriptor for all. Source: zmq_getsockopt(3), ZMQ_FD and ZMQ_EVENTS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias, cast, final

import trio
import zmq

from kernel import Pace

RawSocket: TypeAlias = "zmq.Socket[bytes]"

# Numbers, since a test of a flag of `zmq` takes as long as asking the socket for a message.
_NOW: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS: Final = int(zmq.EVENTS)
_IN: Final = int(zmq.POLLIN)
_OUT: Final = int(zmq.POLLOUT)


@final
class Socket:
    """Sends and receives whole messages: lists of frames. Any task may do either."""

    def __init__(self, raw: RawSocket) -> None:
        self.raw: Final = raw
        self._descriptor: Final = cast("int", raw.getsockopt(zmq.FD))
        self._led_for = 0
        """What the one waits for who waits on the descriptor; 0 if nobody does."""
        self._is_told = False
        """Whether that one has been told to look, and has not run yet."""
        self._waiting: Final = {flag: trio.lowlevel.ParkingLot() for flag in (_IN, _OUT)}

    def recv_nowait(self) -> list[bytes]:
        """Return the next message.

        Raises:
            trio.WouldBlock: if there is none.
        """
        frames = self._take()
        if frames is None:
            raise trio.WouldBlock
        return frames

    def _take(self) -> list[bytes] | None:
        """Return the next message; None if there is none, and then the descriptor tells of the next that comes."""
        try:
            frame = self.raw.recv(_NOW, copy=False)
            frames = [frame.bytes]
            while frame.more:
                frame = self.raw.recv(_NOW, copy=False)
                frames.append(frame.bytes)
        except zmq.Again:
            return None
        finally:
            self._look()
        return frames

    def send_nowait(self, parts: Sequence[bytes]) -> None:
        """Send a message: hand it to the thread that writes.

        Raises:
            TypeError: if a part is none; nothing was sent.
            trio.WouldBlock: if there is nobody to send it to, or no room. Some types of sockets drop it instead.
        """
        for part in parts:
            memoryview(part)  # raises here if it is none: after the first parts, the next message would be the rest
        try:
            for part in parts[:-1]:
                self.raw.send(part, _MORE)
            self.raw.send(parts[-1], _NOW)
        except zmq.Again:
            raise trio.WouldBlock from None
        finally:
            self._look()

    async def next(self, pace: Pace) -> list[bytes]:
        """Wait for the next message; as `recv`, for one who takes message after message.

        Cancellation: Is a checkpoint, at which others run now and then. If cancelled, the message is there for the
            next one.
        """
        await pace.step()
        while (frames := self._take()) is None:
            await self._wait(_IN)
        return frames

    async def recv(self) -> list[bytes]:
        """Wait for the next message.

        Cancellation: Is a checkpoint. If cancelled, the message is there for the next one.
        """
        await trio.lowlevel.checkpoint()
        while (frames := self._take()) is None:
            await self._wait(_IN)
        return frames

    async def send(self, parts: Sequence[bytes]) -> None:
        """Send a message as soon as there is room.

        Cancellation: Is a checkpoint. If cancelled, nothing was sent.
        """
        await trio.lowlevel.checkpoint()
        while True:
            try:
                self.send_nowait(parts)
            except trio.WouldBlock:
                if not self._events() & _OUT:  # unlike a receive that finds nothing, a send does not look for news
                    await self._wait(_OUT)
            else:
                return

    def _look(self) -> None:
        """Wake those who wait for what can be done now, if anybody waits who has not been told to look."""
        if self._led_for and not self._is_told:
            self._events()

    def _events(self) -> int:
        """Return what can be done now, and wake those who wait for it; nobody is told of it twice."""
        events = cast("int", self.raw.getsockopt(_EVENTS))
        if self._led_for:
            for flag, lot in self._waiting.items():
                if events & flag and lot:
                    lot.unpark_all()
            if events & self._led_for and not self._is_told:
                self._is_told = True
                trio.lowlevel.notify_closing(self._descriptor)  # which wakes who waits on it; nothing is closed
        return events

    async def _wait(self, flag: int) -> None:  # noqa: ASYNC910  who is told that it closes has waited too
        """Wait until something may be possible that was found not to be, after all news of it had been looked at.

        Cancellation: Is a checkpoint.
        """
        if self._led_for:
            await self._waiting[flag].park()
            return
        self._led_for = flag
        try:
            await trio.lowlevel.wait_readable(self._descriptor)
        except trio.ClosedResourceError:  # somebody else has taken note of the change
            pass
        finally:
            self._led_for, self._is_told = 0, False
            for lot in self._waiting.values():  # to look, and so that one of them leads
                if lot:
                    lot.unpark_all()
