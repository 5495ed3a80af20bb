"""A TCP relay to the real broker that can terminate TLS, and can stop carrying one direction."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio


class Relay:
    """Each direction is carried while its event is set."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.up = _open()
        self.down = _open()
        self._served = trio.CancelScope()

    def hold(self, *, up: bool = False, down: bool = False) -> None:
        """Carry nothing more in these directions."""
        if up:
            self.up = trio.Event()
        if down:
            self.down = trio.Event()

    def cut(self) -> None:
        """Break all connections off."""
        self._served.cancel()


def _open() -> trio.Event:
    event = trio.Event()
    event.set()
    return event


async def _within(relay: Relay, serve: Callable[..., Awaitable[None]], listener: trio.SocketListener) -> None:
    with relay._served:
        await trio.serve_listeners(serve, [listener])


@asynccontextmanager
async def open_relay(target: tuple[str, int], tls: ssl.SSLContext | None = None) -> AsyncGenerator[Relay]:
    """Relay to `target` from a free port of 127.0.0.1, decrypting if told how."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    relay = Relay(listener.socket.getsockname()[1])

    async def serve(plain: trio.SocketStream) -> None:
        near: trio.abc.Stream = trio.SSLStream(plain, tls, server_side=True) if tls else plain
        try:
            async with near, await trio.open_tcp_stream(*target) as far, trio.open_nursery() as both:
                both.start_soon(carry, near, far, "up", both.cancel_scope)
                both.start_soon(carry, far, near, "down", both.cancel_scope)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def carry(
        source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, name: str, scope: trio.CancelScope
    ) -> None:
        while data := await source.receive_some(65536):
            await getattr(relay, name).wait()
            await sink.send_all(data)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_within, relay, serve, listener)
        yield relay
        nursery.cancel_scope.cancel()
