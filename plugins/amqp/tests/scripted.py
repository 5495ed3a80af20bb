"""Links whose other end is a scripted broker."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from kernel_amqp.core import Properties, Settings
from kernel_amqp.link.channel import LinkChannel
from kernel_amqp.link.connect import Joined, shake_hands
from kernel_amqp.link.link import Link, link_on
from pamqp.heartbeat import Heartbeat
from trio.testing import MockClock, memory_stream_pair

from .peer import Peer

SETTINGS = Settings(response="\0guest\0guest", heartbeat=0.0)
BEATING = attrs.evolve(SETTINGS, heartbeat=10.0)
WHERE = "peer:5672"

Connected = tuple[Peer, Link, LinkChannel]


def sockets(*, send_buffer: int = 0) -> Callable[[], tuple[trio.SocketStream, trio.SocketStream]]:
    """Return what makes both ends of a TCP connection."""

    def pair() -> tuple[trio.SocketStream, trio.SocketStream]:
        # Not a socket pair of the system: streams set what only TCP has.
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
        if send_buffer:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, send_buffer)
        return tuple(trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in (ours, theirs))  # type: ignore[return-value]

    return pair


def beating(stream: Any) -> Peer:
    return Peer(stream, heartbeat=10)


async def publish(channel: LinkChannel, key: str = "q", data: bytes = b"x", **others: Any) -> None:
    given = {"exchange": "", "routing_key": key, "properties": Properties(), "body": data, **others}
    await channel.publish(**given)


class Caught:
    """What a publish raised, or nothing."""

    def __init__(self) -> None:
        self.error: Any = None
        self.done = trio.Event()

    async def run(self, operation: Callable[..., Awaitable[object]], *args: Any) -> None:
        try:
            await operation(*args)
        except Exception as error:  # noqa: BLE001
            self.error = error
        self.done.set()


@asynccontextmanager
async def confirming(**others: Any) -> AsyncGenerator[Connected]:
    """A link with one channel in confirm mode."""
    async with linked(**others) as (peer, link):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.select_confirms)
            channel_manager = link.open_channel()
            channel = await channel_manager.__aenter__()
            await channel.confirm_select()
        try:
            yield peer, link, channel
        finally:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.serve)
                await channel_manager.__aexit__(None, None, None)
                nursery.cancel_scope.cancel()


async def heartbeats_of(peer: Peer) -> None:
    while True:
        await trio.sleep(5)
        await peer.send(Heartbeat(), channel=0)


def jump(seconds: float) -> None:
    """Let so many seconds pass at once, as if something had held the loop up."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    clock.jump(seconds)


@asynccontextmanager
async def joined(
    peer_of: Callable[[Any], Peer] = Peer,
    settings: Settings = SETTINGS,
    pair: Callable[[], tuple[Any, Any]] = memory_stream_pair,
) -> AsyncGenerator[tuple[Peer, Joined]]:
    """Both ends of a connection whose handshake is done."""
    ours, theirs = pair()
    peer = peer_of(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.welcome)
        joined = await shake_hands(ours, WHERE, settings)
    yield peer, joined


@asynccontextmanager
async def linked(
    peer_of: Callable[[Any], Peer] = Peer,
    settings: Settings = SETTINGS,
    pair: Callable[[], tuple[Any, Any]] = memory_stream_pair,
) -> AsyncGenerator[tuple[Peer, Link]]:
    """A link and its peer; afterwards the peer answers the goodbye."""
    async with joined(peer_of, settings, pair) as (peer, done), trio.open_nursery() as nursery:
        async with link_on(done) as link:
            yield peer, link
            nursery.start_soon(peer.serve)
        await trio.aclose_forcefully(peer.stream)


@asynccontextmanager
async def served() -> AsyncGenerator[Link]:
    """A link whose peer answers everything, and goes on when the test is cancelled."""
    ours, theirs = memory_stream_pair()

    async def serve() -> None:
        with trio.CancelScope(shield=True):
            peer = Peer(theirs)
            try:
                await peer.welcome()
            except (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
                return
            await peer.serve()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        try:
            async with link_on(await shake_hands(ours, WHERE, SETTINGS)) as link:
                yield link
        finally:
            await trio.aclose_forcefully(ours)
            await trio.aclose_forcefully(theirs)
