"""Requests that do nothing but wait for their clients hold no slot, and no more of them are kept than there are slots."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from .test_http2 import open_client

ENDLESS = b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n"
UPLOAD = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read all, then answer: without end, or at once."""
    if scope["path"] == "/busy":
        await trio.sleep_forever()
    while (await receive()).get("more_body"):
        pass
    is_endless = scope["path"] == "/endless"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while is_endless:
        await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
    await send({"type": "http.response.body", "body": b"ok"})


async def hold(service: Any, opening: bytes) -> Any:
    """Ask for what will wait; return the connection."""
    before = len(service.intake.entered)
    if opening:
        client = await service.connect()
        await client.send_all(opening)
    else:
        over_http2 = await open_client(service)
        await over_http2.send(over_http2.request(1, path=b"/endless"))
        client = over_http2.stream
    await service.intake.wait(lambda intake: len(intake.entered) > before)
    return client


@pytest.mark.parametrize("opening", [ENDLESS, UPLOAD, b""], ids=["never read", "half a body", "never read, HTTP/2"])
async def test_who_waits_for_its_client_holds_no_slot(
    web: Any, autojump_clock: trio.testing.MockClock, opening: bytes
) -> None:
    async with web(app, h2c=True, concurrency=2, body_buffer_bytes=0) as service:
        clients = [await hold(service, opening) for _ in range(2)]
        began = trio.current_time()
        answer = await service.ask(CLOSE)
        took = trio.current_time() - began
        in_flight = len(service.intake.active)
        for client in clients:
            await client.aclose()
        await service.wait_connections(0)
        again = [await service.ask(CLOSE), len(service.intake.active)]

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert took < 1
    assert in_flight == 2
    assert again[0].startswith(b"HTTP/1.1 200 ")
    assert again[1] == 0


@pytest.mark.parametrize("opening", [ENDLESS, UPLOAD, b""], ids=["never read", "half a body", "never read, HTTP/2"])
async def test_of_more_than_there_are_slots_those_end_that_others_wait_for(
    web: Any, autojump_clock: trio.testing.MockClock, opening: bytes
) -> None:
    limits: dict[str, Any] = {"write_timeout": 60, "body_timeout": 60, "body_pause_timeout": 60, "slot_timeout": 30}
    async with web(app, h2c=True, concurrency=1, body_buffer_bytes=0, **limits) as service:
        clients = [await hold(service, opening)]
        await trio.sleep(1)
        clients.append(await hold(service, opening))
        await trio.sleep(10)
        kept = len(service.intake.active)
        began = trio.current_time()
        with trio.fail_after(40):
            answer = await service.ask(CLOSE)
        took = trio.current_time() - began
        left = len(service.intake.active)
        for client in clients:
            await client.aclose()

    assert (kept, left) == (2, 1)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert took < 1


async def test_who_computes_keeps_its_slot(web: Any, autojump_clock: trio.testing.MockClock) -> None:
    async with web(app, concurrency=1, slot_timeout=1) as service:
        client = await hold(service, CLOSE.replace(b"/ ", b"/busy ", 1))
        with trio.fail_after(20):
            answer = await service.ask(CLOSE)
        await client.aclose()

    assert answer.startswith(b"HTTP/1.1 503 ")
