"""Nothing holds a stop: neither clients that do not read, nor applications that do not end."""

from __future__ import annotations

from typing import Any

import pytest
import trio

BIG = b"x" * 65536
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def flood(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "bytes": BIG})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": BIG, "more_body": True})


@pytest.mark.parametrize("opening", [GET, UPGRADE], ids=["http", "websocket"])
async def test_a_client_that_never_reads_does_not_hold_the_stop(web: Any, opening: bytes) -> None:
    async with web(flood, stop_timeout=0.4) as service, await service.connect() as client:
        await client.send_all(opening)
        await service.intake.wait(lambda intake: intake.active)
        await _wait_until_blocked(service)

        took = await service.stop(drain=0.05)

    assert took < 0.4


async def test_an_application_that_ignores_its_cancellation_while_it_sends_does_not_hold_the_stop(web: Any) -> None:
    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        with trio.CancelScope(shield=True):
            await flood(scope, receive, send)

    async with web(stubborn, stop_timeout=0.4) as service, await service.connect() as client:
        await client.send_all(GET)
        await service.intake.wait(lambda intake: intake.active)
        await service.stop_accepting()

        took = await service.leave()

    assert took < 0.4


async def test_a_client_that_never_reads_is_closed_after_the_write_timeout(web: Any) -> None:
    async with web(flood, write_timeout=0.1) as service, await service.connect() as client:
        await client.send_all(GET)
        await service.wait_connections(1)

        await service.wait_connections(0)

        await service.intake.wait(lambda intake: not intake.active)


async def _wait_until_blocked(service: Any) -> None:
    """Wait until the buffer is over its mark, which means that the socket's are full."""
    (connection,) = service.dispatcher._server.connections
    with trio.fail_after(3):
        while connection._out_bytes < len(BIG):
            await trio.sleep(0.005)
