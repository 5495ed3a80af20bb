"""The RabbitMQ of the machine, answering as 4.3 does where that differs, by its documentation and release notes.

It says that it is 4.3.0, and closes a connection for a transient queue that is not exclusive, unless there is a durable
one of that name, to which it compares it first. What a quorum queue counts is not seen in its answers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import attrs
import trio
from pamqp import commands, frame

TEXT = "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated and not permitted"
_HEAD = 8
_DECLARE = b"\x00\x32\x00\x0a"
_CLOSE_OK = b"\x00\x0a\x00\x33"
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


@attrs.define(eq=False)
class Rabbit43:
    """What listens in front of a broker; the tests of one driver are its only clients."""

    target: tuple[str, int]
    port: int = 0
    refused: list[str] = attrs.field(factory=list[str])
    """Names of queues for which it has closed a connection."""
    _durable: set[str] = attrs.field(factory=set[str], init=False)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        await trio.serve_listeners(self._serve, [listener], task_status=task_status)

    async def _serve(self, near: trio.SocketStream) -> None:
        try:
            async with near, await trio.open_tcp_stream(*self.target) as far, trio.open_nursery() as both:
                both.start_soon(self._up, near, far, both.cancel_scope)
                both.start_soon(_down, far, near, both.cancel_scope)
        except* _BROKEN:
            pass

    async def _up(self, near: trio.SocketStream, far: trio.SocketStream, scope: trio.CancelScope) -> None:
        refused = False
        async with aclosing(frames_of(near)) as frames:
            async for data in frames:
                if not refused and (name := self._transient(data)):
                    self.refused.append(name)
                    refused = True
                    close = commands.Connection.Close(541, TEXT, 50, 10)
                    await near.send_all(frame.marshal(close, 0))
                if refused and data[7:11] == _CLOSE_OK:
                    break
                if not refused:
                    await far.send_all(data)
        scope.cancel()

    def _transient(self, data: bytes) -> str:
        """Return the name of a queue that must not be; empty for everything else."""
        if data[7:11] != _DECLARE:
            return ""
        _, _, method = frame.unmarshal(data)
        assert isinstance(method, commands.Queue.Declare)
        if method.durable:
            self._durable.add(method.queue)
        is_other = method.passive or method.durable or method.exclusive or method.queue in self._durable
        return "" if is_other else method.queue


async def _down(far: trio.SocketStream, near: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Carry what the broker says, in the pieces in which it comes: what comes at once is seen at once."""
    start = await far.receive_some(65536)
    while len(start) < _HEAD or len(start) < _size(start):
        start += await far.receive_some(65536)
    await near.send_all(_as_43(start))
    while data := await far.receive_some(65536):
        await near.send_all(data)
    scope.cancel()


def _as_43(data: bytes) -> bytes:
    _, channel, start = frame.unmarshal(data)
    assert isinstance(start, commands.Connection.Start)
    start.server_properties = {**start.server_properties, "version": "4.3.0"}
    return frame.marshal(start, channel)


async def frames_of(stream: trio.SocketStream) -> AsyncGenerator[bytes]:
    """Yield what a client begins with, and then one whole frame after the other."""
    buffer, protocol_header = b"", True
    while data := await stream.receive_some(65536):
        buffer += data
        while (size := _size(buffer, protocol_header=protocol_header)) <= len(buffer):
            protocol_header = False
            yield buffer[:size]
            buffer = buffer[size:]


def _size(buffer: bytes, *, protocol_header: bool = False) -> int:
    if protocol_header or len(buffer) < 7:
        return _HEAD
    return int.from_bytes(buffer[3:7], "big") + _HEAD


@asynccontextmanager
async def rabbit_43(target: tuple[str, int]) -> AsyncGenerator[Rabbit43]:
    """Answer as 4.3 on a free port."""
    rabbit = Rabbit43(target)
    async with trio.open_nursery() as nursery:
        await nursery.start(rabbit.run)
        try:
            yield rabbit
        finally:
            nursery.cancel_scope.cancel()
