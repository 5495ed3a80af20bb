"""The promises of `kernel.abc`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from kernel_websocket import (
    JsonRpcProtocol,
    UfwWebSocketProtocol,
    WebSocketClient,
    WebSocketClientConfig,
    WebSocketClientDriver,
    WebSocketConfig,
    WebSocketDispatcher,
)

from kernel import Arguments, Event, Listening
from kernel.abc import Dispatcher
from kernel.testing import Feed, check_dispatcher, check_driver, check_protocol, fake_context

from .service import open_socket

VALUES = [None, True, 0, -1.5, "é\u2028😀", [], {"a": [1, {"b": None}]}, 2**70]
CALLS = [Arguments(), Arguments((1, [2])), Arguments((), {"a": {"b": None}}), Arguments(("x",))]


async def test_jsonrpc_keeps_the_promises_of_a_protocol() -> None:
    await check_protocol(JsonRpcProtocol, samples=CALLS, results=VALUES)


async def test_ufw_websocket_keeps_the_promises_of_a_protocol() -> None:
    await check_protocol(UfwWebSocketProtocol, samples=[*CALLS, Arguments((1,), {"a": 2})], results=VALUES)


@asynccontextmanager
async def listening() -> AsyncGenerator[tuple[Dispatcher, Feed]]:
    events: list[Event] = []
    context = fake_context("dispatcher/desk", events=events, protocol=JsonRpcProtocol())

    async def feed(count: int) -> None:
        [address] = [event.address for event in events if isinstance(event, Listening)]
        async with open_socket(address) as socket:
            for _ in range(count):
                await socket.send_message('{"jsonrpc": "2.0", "method": "x", "id": 1}')
            for _ in range(count):
                await socket.get_message()

    yield WebSocketDispatcher(config=WebSocketConfig(port=0), context=context), feed


async def test_websocket_keeps_the_promises_of_a_dispatcher() -> None:
    await check_dispatcher(listening, waiting=100, patience=0.05)


SERVER = """
import json, trio
from trio_websocket import ConnectionClosed, serve_websocket

async def handle(request):
    socket = await request.accept()
    try:
        while True:
            asked = json.loads(await socket.get_message())
            await socket.send_message(json.dumps({"id": asked["id"], "result": asked["params"][0] * 2}))
    except ConnectionClosed:
        pass

async def main():
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, handle, "127.0.0.1", 0, None)
        print(server.port, flush=True)

trio.run(main)
"""
"""In a process of its own, so that its descriptors are not taken for those that the driver leaves."""


def start_server() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)


async def test_websocket_client_keeps_the_promises_of_a_driver() -> None:
    server = start_server()
    assert server.stdout is not None
    try:
        config = WebSocketClientConfig(url=f"ws://127.0.0.1:{int(server.stdout.readline())}/")

        async def use(client: WebSocketClient) -> None:
            assert await client.double(2) == 4

        await check_driver(
            lambda: WebSocketClientDriver(
                config=config, context=fake_context("driver/calls", protocol=JsonRpcProtocol())
            ),
            use=use,
        )
    finally:
        server.kill()
        server.communicate()
