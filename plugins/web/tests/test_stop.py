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


@pytest.mark.slow
@pytest.mark.parametrize("opening", [GET, UPGRADE], ids=["http", "websocket"])
async def test_a_client_that_never_reads_does_not_hold_the_stop(web: Any, opening: bytes) -> None:
    async with web(flood, stop_timeout=2) as service, await service.connect() as client:
        await client.send_all(opening)
        await service.intake.wait(lambda intake: intake.active)
        await _wait_until_blocked(service)

        took = await service.stop(drain=0.05)

    assert took < 2


async def test_an_application_that_ignores_its_cancellation_while_it_sends_does_not_hold_the_stop(web: Any) -> None:
    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        with trio.CancelScope(shield=True):
            await flood(scope, receive, send)

    async with web(stubborn, stop_timeout=2) as service, await service.connect() as client:
        await client.send_all(GET)
        await service.intake.wait(lambda intake: intake.active)
        await service.stop_accepting()

        took = await service.leave()

    assert took < 2


async def test_a_client_that_never_reads_is_closed_after_the_write_timeout(web: Any) -> None:
    async with web(flood, write_timeout=0.1) as service, await service.connect() as client:
        await client.send_all(GET)
        await service.wait_connections(1)

        await service.wait_connections(0)

        await service.intake.wait(lambda intake: not intake.active)


async def _wait_until_blocked(service: Any) -> None:
    """Wait until something is left over, which means that the buffers of the socket are full."""
    (connection,) = service.dispatcher._server.connections
    with trio.fail_after(20):
        while not connection.channel.has_unsent:  # noqa: ASYNC110  nothing tells
            await trio.sleep(0.005)


# --- the order of a stop --------------------------------------------------------------------------------------------


def parked(events: list[str], release: trio.Event) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await release.wait()
        except trio.Cancelled:
            events.append("cancelled")
            raise
        events.append("answered")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


async def test_what_is_in_flight_finishes_and_nothing_new_comes_in(web: Any) -> None:
    events: list[str] = []
    release = trio.Event()
    async with web(parked(events, release)) as service, await service.connect() as client:
        await client.send_all(GET)
        await service.intake.wait(lambda intake: intake.active)
        await service.stop_accepting()
        with pytest.raises(OSError, match="all attempts to connect"):
            await service.connect()
        release.set()
        with trio.fail_after(4):
            received = await _read_all(client)

    assert received.startswith(b"HTTP/1.1 200")
    assert received.endswith(b"ok")
    assert events == ["answered"]


async def test_what_is_in_flight_at_the_deadline_is_cut_and_the_client_is_told(web: Any) -> None:
    events: list[str] = []
    async with web(parked(events, trio.Event()), stop_timeout=10) as service, await service.connect() as client:
        await client.send_all(GET)
        await service.intake.wait(lambda intake: intake.active)
        took = await service.stop(drain=0.05)
        received = await _read_all(client)

    assert received.startswith(b"HTTP/1.1 503")
    assert b"retry-after" in received
    assert events == ["cancelled"]
    assert took < 5


async def test_idle_connections_are_closed_at_once(web: Any) -> None:
    events: list[str] = []
    release = trio.Event()
    release.set()
    async with web(parked(events, release), keep_alive_timeout=60, stop_timeout=10) as service:
        async with await service.connect() as used, await service.connect() as fresh:
            await used.send_all(GET)
            await used.receive_some()
            await service.wait_connections(2)
            await service.stop_accepting()
            with trio.fail_after(4):
                rests = [await _read_all(used), await _read_all(fresh)]
        took = await service.stop()

    assert rests == [b"", b""]
    assert took < 5


async def test_a_request_that_waits_for_a_slot_is_sent_away(web: Any) -> None:
    events: list[str] = []
    release = trio.Event()
    async with web(parked(events, release), concurrency=1) as service:  # noqa: SIM117  the inner ends first, to be looked at after
        async with await service.connect() as first, await service.connect() as second:
            await first.send_all(GET)
            await service.intake.wait(lambda intake: intake.active)
            await second.send_all(GET)
            (waiting,) = await _until(lambda: list(service.dispatcher._server.shared.waiting))
            await service.stop_accepting()
            with trio.fail_after(4):
                refused = await _read_all(second)
            release.set()
            with trio.fail_after(4):
                answered = await _read_all(first)

    assert refused.startswith(b"HTTP/1.1 503")
    assert answered.startswith(b"HTTP/1.1 200")
    assert waiting.cancelled_caught


async def test_a_request_that_gets_its_slot_after_the_cut_is_sent_away_without_its_application(web: Any) -> None:
    events: list[str] = []
    async with web(parked(events, trio.Event()), concurrency=1) as service:  # noqa: SIM117  the inner ends first, to be looked at after
        async with await service.connect() as first, await service.connect() as second:
            await first.send_all(CLOSE)
            await service.intake.wait(lambda intake: intake.active)
            await second.send_all(CLOSE)
            await _until(lambda: list(service.dispatcher._server.shared.waiting))
            await service.intake.drain(0.0)
            with trio.fail_after(4):
                answers = [await _read_all(first), await _read_all(second)]
            entered = len(service.intake.entered)

    assert [answer.partition(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 503 Service Unavailable"] * 2
    assert events == ["cancelled"]
    assert entered == 2
    assert [log["level"] for log in service.logs] == ["warning"]


async def test_a_dispatcher_can_stop_without_ever_accepting(web: Any) -> None:
    async with web(flood, stop_timeout=10) as service:
        took = await service.stop()

    assert took < 5


async def _read_all(stream: trio.SocketStream) -> bytes:
    received = b""
    try:
        async for chunk in stream:
            received += chunk
    except trio.BrokenResourceError:
        pass
    return received


async def _until(look: Any) -> Any:
    with trio.fail_after(20):
        while not (found := look()):  # noqa: ASYNC110  nothing tells
            await trio.sleep(0.005)
    return found
