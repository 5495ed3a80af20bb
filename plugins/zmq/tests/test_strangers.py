"""Peers that mean no good: bounded, nothing they say is evaluated, the next good call works, and a stop is in time."""

from __future__ import annotations

import json
import random
import resource
import socket
from collections.abc import Generator
from contextlib import ExitStack, suppress
from typing import Any, Final

import pytest
import trio
import zmq

from kernel import Listening, answers
from kernel.errors import DecodeError, RemoteError
from kernel.testing import RunningService

from .raw import LOCAL, Socket, open_raw, serving

pytestmark = pytest.mark.slow

GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY: Final = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\6DEALER"
GOOD: Final = b"\x01\x00" + b"\x00\x03[2]"
"""What a DEALER says that asks `desk` for the double of 2. Source: ZeroMQ RFC 23, ZMTP 3.0."""
CROWD: Final = 1000


class Desk:
    @answers("desk.double", "desk")
    async def double(self, number: int) -> int:
        await trio.lowlevel.checkpoint()
        return number * 2

    @answers("desk.much")
    async def much(self) -> str:
        await trio.lowlevel.checkpoint()
        return "x" * 500_000


def desk(**table: Any) -> Any:
    brought = {"plugin": "zmq_reply", "bind": [LOCAL], "max_bytes": 65536, **table}
    return serving({"desk": Desk}, dispatchers={"desk": brought})


async def port_of(service: RunningService) -> int:
    return int((await service.wait_event(Listening)).address.rpartition(":")[2])


async def works(port: int) -> None:
    async with open_raw(zmq.REQ, connect=f"tcp://127.0.0.1:{port}") as req:
        with trio.fail_after(20):
            await req.send([b"desk.double", b"[21]"])
            assert json.loads((await req.recv())[0]) == {"result": 42}


@pytest.fixture
def many_files() -> Generator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * CROWD
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} files to be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connected(stack: ExitStack, port: int) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))


def say(connection: socket.socket, said: bytes) -> None:
    """Say it as a peer would, who waits for the other's part of the handshake: libzmq leaves who does not.

    What is not as it should be gets no answer, and is followed by the rest at once.
    """
    with suppress(OSError):  # it is shown the door for what it says
        for part in (GREETING, READY):
            is_right, rest = said.startswith(part), said[len(part) :]
            connection.sendall(said[: len(part)] if is_right else said)
            if not is_right:
                return
            said = rest
            heard = exactly(connection, len(GREETING) if part is GREETING else 2)
            if part is READY:
                exactly(connection, heard[1])
        connection.sendall(said)


def exactly(connection: socket.socket, size: int) -> bytes:
    heard = b""
    while len(heard) < size:
        heard += (more := connection.recv(size - len(heard)))
        if not more:
            raise ConnectionResetError
    return heard


async def test_a_good_conversation_by_hand_is_answered() -> None:
    """So that what follows is cut from something that would have worked."""
    with ExitStack() as stack:
        async with desk() as service:
            connection = connected(stack, await port_of(service))
            say(connection, GREETING + READY + GOOD)
            said = b""
            while b'{"result":4}' not in said:
                said += await trio.to_thread.run_sync(connection.recv, 4096)


async def test_conversations_that_are_cut_or_garbled_anywhere_hinder_nobody() -> None:
    chance, whole = random.Random(1), GREETING + READY + GOOD
    with ExitStack() as stack:
        async with desk() as service:
            port = await port_of(service)
            for number in range(200):
                said = bytearray(whole[: chance.randrange(1, len(whole) + 1)])
                if number % 2:
                    said[chance.randrange(len(said))] ^= 1 << chance.randrange(8)
                connection = connected(stack, port)
                say(connection, bytes(said))
                if number % 3:
                    connection.close()

            await works(port)


async def test_a_frame_that_claims_to_be_huge_is_not_waited_for() -> None:
    with ExitStack() as stack:
        async with desk() as service:
            port = await port_of(service)
            connection = connected(stack, port)
            say(connection, GREETING + READY + b"\x02" + (2**62).to_bytes(8) + b"x")
            while await trio.to_thread.run_sync(connection.recv, 4096):
                pass  # until it is disconnected

            await works(port)


async def test_a_crowd_that_says_half_a_sentence_or_nothing_hinders_nobody(many_files: None) -> None:
    with ExitStack() as stack:
        async with desk() as service:
            port = await port_of(service)
            for number in range(CROWD):
                connection = connected(stack, port)
                say(connection, (GREETING + READY + GOOD)[: number % 101])

            await works(port)
            with trio.fail_after(20):
                await service.stop()


async def test_who_never_reads_is_bounded_and_a_stop_does_not_wait_for_them() -> None:
    async with desk(send_high_water=5, linger=0.2) as service:
        port = await port_of(service)
        with ExitStack() as stack:
            connection = connected(stack, port)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            say(connection, GREETING + READY + (b"\x01\x00" + b"\x01\x09desk.much" + b"\x00\x02[]") * 100)
            await works(port)
            with trio.fail_after(20):
                await service.stop()


REPLIES: Final[list[bytes]] = [
    b"",
    b"\xff",
    b"[" * 100_000,
    b"nonsense",
    b"{}",
    b'{"result": 1, "error": {"type": "x", "message": "y"}}',
    b'{"error": {"type": "SystemExit", "message": "0"}}',
    b'{"error": {"type": "builtins.exec", "message": "raise SystemExit"}}',
    b'{"error": {"type": "KeyboardInterrupt", "message": ""}}',
    b'{"error": {"type": {"__class__": "os.system"}, "message": ["x"]}}',
    b'{"error": "text"}',
]


async def test_no_answer_is_evaluated_and_the_next_good_one_is_taken(address: str) -> None:
    request = {"plugin": "zmq_request", "connect": [address], "max_bytes": 1_000_000}
    async with (
        open_raw(zmq.ROUTER, bind=address) as peer,
        serving({}, drivers={"rpc": request}) as service,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(answering, peer, [*REPLIES, b'{"result": 1}'])
        rpc = service.resource("driver/rpc")
        for _ in REPLIES:
            with trio.fail_after(20), pytest.raises((RemoteError, DecodeError)):
                await rpc.x()
        with trio.fail_after(20):
            assert await rpc.x() == 1

        assert rpc.in_flight == 0
        nursery.cancel_scope.cancel()


async def answering(peer: Socket, bodies: list[bytes]) -> None:
    """Answer each request with the next body, and with what is for nobody before it."""
    for body in bodies:
        asked = await peer.recv()
        to = asked[0]
        for noise in ([b"\1kernel-cancel", b"x"], [b""], [b"", b""], [b"unknown", b"", b"1"], [b"x"] * 100):
            await peer.send([to, *noise])
        await peer.send([*asked[: asked.index(b"") + 1], body])
        await peer.send([*asked[: asked.index(b"") + 1], body])  # once more, and too late
