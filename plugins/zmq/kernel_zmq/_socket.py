"""A socket of ZeroMQ under trio: waits on its descriptor, and loses nothing when it is cancelled.

The descriptor becomes readable when something has changed, in whichever direction, and any call of libzmq may take note
of the change: so whoever calls it looks at what can be done now, and wakes those who waited for that. Of those who wait,
one waits on the descriptor for all. Source: zmq_getsockopt(3), ZMQ_FD and ZMQ_EVENTS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias, cast, final

import attrs
import trio
import zmq

from kernel import Pace

RawSocket: TypeAlias = "zmq.Socket[bytes]"


@final
@attrs.define(eq=False, repr=False)
class _Leader:
    """Who waits on the descriptor."""

    wants: int
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)


@final
class Socket:
    """Sends and receives whole messages: lists of frames. Any task may do either."""

    def __init__(self, raw: RawSocket) -> None:
        self.raw: Final = raw
        self._descriptor: Final = cast("int", raw.getsockopt(zmq.FD))
        self._leader: _Leader | None = None
        self._waiting: Final[dict[int, trio.lowlevel.ParkingLot]] = {
            int(flag): trio.lowlevel.ParkingLot() for flag in (zmq.POLLIN, zmq.POLLOUT)
        }

    def recv_nowait(self) -> list[bytes]:
        """Return the next message.

        Raises:
            trio.WouldBlock: if there is none.
        """
        try:
            return self.raw.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            raise trio.WouldBlock from None
        finally:
            self._look()

    def send_nowait(self, parts: Sequence[bytes]) -> None:
        """Send a message: hand it to the thread that writes.

        Raises:
            trio.WouldBlock: if there is nobody to send it to, or no room. Some types of sockets drop it instead.
        """
        try:
            self.raw.send_multipart(parts, zmq.NOBLOCK)
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
        await self._wait(zmq.POLLIN)
        return self.recv_nowait()

    async def recv(self) -> list[bytes]:
        """Wait for the next message.

        Cancellation: Is a checkpoint. If cancelled, the message is there for the next one.
        """
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return self.recv_nowait()
            except trio.WouldBlock:
                await self._wait(zmq.POLLIN)

    async def send(self, parts: Sequence[bytes]) -> None:
        """Send a message as soon as there is room.

        Cancellation: Is a checkpoint. If cancelled, nothing was sent.
        """
        await trio.lowlevel.checkpoint()
        while True:
            try:
                self.send_nowait(parts)
            except trio.WouldBlock:
                await self._wait(zmq.POLLOUT)
            else:
                return

    def _look(self) -> None:
        """Wake those who wait for what can be done now, if anybody waits."""
        if self._leader is not None:
            self._events()

    def _events(self) -> int:
        """Return what can be done now, and wake those who wait for it; nobody is told of it twice."""
        events = cast("int", self.raw.getsockopt(zmq.EVENTS))
        leader = self._leader
        if leader is not None:
            for flag, lot in self._waiting.items():
                if events & flag:
                    lot.unpark_all()
            if events & leader.wants:
                leader.scope.cancel()
        return events

    async def _wait(self, flag: int) -> None:  # noqa: ASYNC910  see below
        """Wait until something can be done.

        Cancellation: Is a checkpoint unless it can be done at once; those who call it had one.
        """
        while not self._events() & flag:
            if self._leader is not None:
                await self._waiting[flag].park()
                continue
            leader = self._leader = _Leader(flag)
            try:
                with leader.scope:
                    await trio.lowlevel.wait_readable(self._descriptor)
            finally:
                self._leader = None
                for lot in self._waiting.values():  # to look, and so that one of them leads
                    lot.unpark_all()
