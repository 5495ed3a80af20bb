"""Every promise of a broker, on both servers, and over STOMP 1.1 as well."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from kernel_stomp import StompConfig, StompDriver, StompOptions

from kernel.abc import Broker
from kernel.testing import check_broker, fake_context

from .conftest import Server

pytestmark = pytest.mark.slow

OFFER = b"accept-version:1.2,1.1"


def config_of(server: Server, port: int | None = None) -> StompConfig:
    return StompConfig(
        server="rabbitmq" if server.kind == "rabbitmq" else "activemq",
        hosts=(f"127.0.0.1:{port or server.port}",),
        delays=server.kind == "activemq",
    )


@asynccontextmanager
async def opened(config: StompConfig) -> AsyncGenerator[Broker]:
    async with StompDriver(config=config, context=fake_context("driver/queue")).open() as broker:
        yield broker


async def check(config: StompConfig) -> None:
    await check_broker(
        partial(opened, config),
        capabilities=StompDriver.capabilities_of(config),
        prioritised=StompOptions(max_priority=9),
    )


async def test_stomp_keeps_every_promise_of_a_broker(server: Server) -> None:
    await check(config_of(server))


async def test_and_so_it_does_where_the_server_has_no_more_than_stomp_1_1(rabbit: Server) -> None:
    offers: list[bytes] = []
    async with only_old(rabbit.port, offers) as port:
        await check(config_of(rabbit, port))

    assert offers


@asynccontextmanager
async def only_old(target: int, offers: list[bytes]) -> AsyncGenerator[int]:
    """Relay to a server that is never offered 1.2; notes what was."""

    async def serve(near: trio.SocketStream) -> None:
        async with near, await trio.open_tcp_stream("127.0.0.1", target) as far, trio.open_nursery() as both:
            both.start_soon(carry, near, far, both.cancel_scope)
            both.start_soon(carry, far, near, both.cancel_scope)

    async def carry(source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some(65536):
                offers.extend([OFFER] * data.count(OFFER))
                await sink.send_all(data.replace(OFFER, b"accept-version:1.1"))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()
