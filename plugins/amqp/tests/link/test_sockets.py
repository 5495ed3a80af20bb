"""Reading a socket when it has something, and only then."""

from __future__ import annotations

import os
import socket
import struct

import pytest
import trio
from kernel_amqp.link.sockets import receive
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from ..scripted import sockets


class Thief(trio.abc.Instrument):
    """Reads what has come before whoever waits for it can."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.stolen = b""

    def after_io_wait(self, timeout: float) -> None:
        if not self.stolen:
            try:
                self.stolen = os.read(self.fd, 100)
            except BlockingIOError:
                return


async def test_what_has_come_is_read() -> None:
    ours, theirs = sockets()()
    async with ours, theirs:
        await theirs.send_all(b"one")
        assert await receive(ours) == b"one"
        await theirs.send_eof()
        assert await receive(ours) == b""


async def test_who_is_woken_for_nothing_waits_on() -> None:
    ours, theirs = sockets()()
    received: list[bytes | bytearray] = []

    async def receive_one() -> None:
        received.append(await receive(ours))

    thief = Thief(ours.socket.fileno())
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(receive_one)
        await wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(thief)
        await theirs.send_all(b"one")
        while not thief.stolen:
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert received == []
        await theirs.send_all(b"two")

    assert thief.stolen == b"one"
    assert received == [b"two"]


async def test_a_reset_says_what_it_is() -> None:
    ours, theirs = sockets()()
    async with ours:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await theirs.aclose()
        with pytest.raises(trio.BrokenResourceError) as raised:
            await receive(ours)

    assert isinstance(raised.value.__cause__, ConnectionResetError)


async def test_a_stream_that_is_no_socket_is_read_as_it_is() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(b"one")
    assert await receive(ours) == b"one"


async def test_reading_can_be_cancelled() -> None:
    ours, theirs = sockets()()
    async with ours, theirs:
        with trio.CancelScope() as scope:
            scope.cancel()
            await receive(ours)
        assert scope.cancelled_caught
        await theirs.send_all(b"one")
        assert await receive(ours) == b"one"
