"""What a client may do that once held a slot, a connection or memory for ever: each ends, and costs only itself."""

from __future__ import annotations

import socket
import struct
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from kernel_web import SlotsTaken
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class App:
    """Accepts websockets and waits for them to end; answers requests."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] != "websocket.disconnect":
                pass
            self.seen.append(message["code"])
            return
        message = await receive()
        self.seen.append((scope["path"], message["type"], dict(scope["headers"]).get(b"host"), scope["query_string"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


async def read_all(stream: trio.SocketStream) -> bytes:
    received = b""
    try:
        async for chunk in stream:
            received += chunk
    except trio.BrokenResourceError:
        pass
    return received


# --- websockets that are none ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [b"\x81", b"\x81\x80", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 200], ids=repr)
async def test_bytes_behind_a_websocket_upgrade_leak_nothing(web: Any, early: bytes) -> None:
    app = App()
    async with web(app, concurrency=1) as service:
        for _ in range(3):
            async with await service.connect() as client:
                await client.send_all(UPGRADE + early)
        await service.wait_connections(0)
        answered = await service.ask(CLOSE)
        active = dict(service.intake.active)

    assert answered.startswith(b"HTTP/1.1 200")
    assert active == {}
    assert len([code for code in app.seen if isinstance(code, int)]) == 3
    assert service.logs == []


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", 400),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"short", 400),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25jZQ==, x", 400),
        (b"Sec-WebSocket-Version: 13\r\n", b"", 400),
        (b"Version: 13", b"Version: 8", 426),
        (b"Host: a", b"Host: a\r\nContent-Length: 3", 400),
    ],
    ids=["no key", "short key", "two keys", "no version", "old version", "body"],
)
async def test_a_handshake_that_is_none_is_refused_and_closed(web: Any, old: bytes, new: bytes, status: int) -> None:
    async with web(App(), max_connections=2) as service:
        answers = [await service.ask(UPGRADE.replace(old, new)) for _ in range(3)]
        await service.wait_connections(0)

    assert [answer.split()[1] for answer in answers] == [b"%d" % status] * 3
    assert service.intake.entered == []
    wanted = [b"sec-websocket-version: 13", b"upgrade: websocket", b"connection: Upgrade", b"connection: close"]
    assert [line in answers[0].split(b"\r\n") for line in wanted] == [*[status == 426] * 3, True]


async def test_a_handshake_over_http_1_0_is_a_request(web: Any) -> None:
    async with web(App()) as service:
        answer = await service.ask(UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"))

    assert answer.startswith(b"HTTP/1.1 200")


async def test_the_options_of_a_connection_may_stand_in_several_lines(web: Any) -> None:
    upgrade = UPGRADE.replace(b"Connection: Upgrade", b"Connection: keep-alive\r\nConnection: Upgrade\r\nConnection: x")
    async with web(App()) as service, await service.connect() as client:
        await client.send_all(upgrade)
        head = await client.receive_some()

    assert head.startswith(b"HTTP/1.1 101")


async def test_idle_websockets_take_no_slot_and_have_a_limit_of_their_own(web: Any) -> None:
    async with web(App(), concurrency=1, max_websockets=2) as service:
        sockets = [await service.connect() for _ in range(3)]
        heads = []
        for stream in sockets:
            await stream.send_all(UPGRADE)
            heads.append((await stream.receive_some()).split(b"\r\n")[0])
        answered = await service.ask(CLOSE)
        for stream in sockets:
            await stream.aclose()
        await service.wait_connections(0)

    assert heads == [b"HTTP/1.1 101 Switching Protocols"] * 2 + [b"HTTP/1.1 503 Service Unavailable"]
    assert answered.startswith(b"HTTP/1.1 200")


async def test_a_websocket_whose_client_answers_no_ping_is_closed(
    web: Any, autojump_clock: trio.testing.MockClock
) -> None:
    app = App()
    async with web(app, websocket_ping=20, websocket_pong_timeout=15) as service:
        client = await service.connect()
        await client.send_all(UPGRADE)
        received = await read_all(client)
        await client.aclose()
        await service.intake.wait(lambda intake: not intake.active)

    assert received.endswith(b"\x89\x00\x88\x15" + (1011).to_bytes(2, "big") + b"no answer to a ping")
    assert app.seen == [1006]
    assert 35 <= trio.current_time() < 40


async def test_a_close_is_read_by_a_client_that_is_sending(web: Any) -> None:
    async def closes(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.close", "code": 4000})

    async with web(closes) as service, await service.connect() as client:
        await client.send_all(UPGRADE)
        await client.receive_some()
        await client.send_all(b"\x81\x81\x00\x00\x00\x00x" * 20_000)
        with trio.fail_after(4):
            received = await read_all(client)

    assert received == b"\x88\x02" + (4000).to_bytes(2, "big")


@pytest.mark.parametrize("character", ["x", "é", "🍵"])
async def test_the_limit_of_a_message_counts_bytes(web: Any, character: str) -> None:
    text = (character * 1000).encode()[:1001]
    payload = character.encode() * (1000 // len(character.encode()) + 1)
    app = App()
    async with web(app, websocket_max_bytes=1000) as service, await service.connect() as client:
        await client.send_all(UPGRADE)
        await client.receive_some()
        await client.send_all(b"\x81\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload)
        received = await read_all(client)
        await client.aclose()
        await service.intake.wait(lambda intake: not intake.active)

    assert len(text) >= 1000
    assert received[2:4] == (1009).to_bytes(2, "big")
    assert app.seen == [1009]


# --- clients that leave ---------------------------------------------------------------------------------------------


async def test_a_stream_that_says_nothing_ends_when_its_client_leaves(web: Any) -> None:
    ended = trio.Event()

    async def nothing() -> Any:
        try:
            yield b"first"
            await trio.sleep_forever()
        finally:
            ended.set()

    async def stream(_: Request) -> StreamingResponse:
        return StreamingResponse(nothing())

    async with web(Starlette(routes=[Route("/", stream)]), concurrency=1) as service:
        async with await service.connect() as client:
            await client.send_all(GET)
            await client.receive_some()
        with trio.fail_after(4):
            await ended.wait()
        await service.intake.wait(lambda intake: not intake.active)

    assert service.logs == []


async def test_who_asks_whether_the_client_is_gone_learns_it(web: Any) -> None:
    answers: list[bool] = []
    look = trio.Event()

    async def poll(request: Request) -> PlainTextResponse:
        await request.body()
        await look.wait()
        answers.append(await request.is_disconnected())
        return PlainTextResponse("late")

    async with web(Starlette(routes=[Route("/", poll)])) as service:
        for leaves in (False, True):
            look = trio.Event()
            async with await service.connect() as client:
                await client.send_all(GET)
                await service.intake.wait(lambda intake: intake.active)
                if leaves:
                    await client.aclose()
                look.set()
                await service.intake.wait(lambda intake: not intake.active)

    assert answers == [False, True]


@pytest.mark.parametrize("ahead", [b"G", GET * 3, GET * 4000], ids=["a byte", "requests", "more than is read"])
async def test_what_was_sent_ahead_does_not_hide_that_a_client_left(web: Any, ahead: bytes) -> None:
    seen: list[str] = []

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        seen.append((await receive())["type"])

    async with web(waits) as service:
        client = await service.connect()
        await client.send_all(GET + ahead)
        await service.intake.wait(lambda intake: intake.active)
        await client.aclose()
        await service.intake.wait(lambda intake: seen)

    assert seen[0] == "http.disconnect"


@pytest.mark.parametrize("h2c", [False, True])
async def test_a_client_that_connects_and_resets_is_not_worth_a_word(web: Any, h2c: bool) -> None:
    async with web(App(), h2c=h2c) as service:
        for opening in (b"", b"", GET[:9], UPGRADE, b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            client = socket.create_connection(("127.0.0.1", service.port))
            client.sendall(opening)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            await trio.sleep(0.01)
        await service.wait_connections(0)

    assert service.logs == []


async def test_a_connection_that_nothing_would_end_is_closed(web: Any, autojump_clock: object) -> None:
    async with web(App()) as service, await service.connect() as client:
        await client.send_all(GET)
        await client.receive_some()
        (guest,) = service.dispatcher._server.connections
        guest._speaker.read_until = float("inf")
        rest = await read_all(client)

    assert rest == b""
    assert [log["event"] for log in service.logs] == ["a connection had no deadline, and is closed"]


# --- slots ----------------------------------------------------------------------------------------------------------


async def test_half_bodies_take_no_slot(web: Any) -> None:
    half = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf"
    async with web(App(), concurrency=1) as service:
        slow = [await service.connect() for _ in range(3)]
        for stream in slow:
            await stream.send_all(half)
        answered = await service.ask(CLOSE)
        entered = len(service.intake.entered)
        for stream in slow:
            await stream.aclose()

    assert answered.startswith(b"HTTP/1.1 200")
    assert entered == 1


async def test_waiting_for_a_slot_has_a_bound_and_is_told_once(
    web: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async def stuck(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep_forever()

    async with web(stuck, concurrency=1, slot_timeout=7, max_waiting=1) as service:
        first = await service.connect()
        await first.send_all(CLOSE)
        await service.intake.wait(lambda intake: intake.active)
        began = trio.current_time()
        second, third = await service.connect(), await service.connect()
        await second.send_all(CLOSE)
        await trio.testing.wait_all_tasks_blocked()
        await third.send_all(CLOSE)
        refused, at_once = await read_all(third), trio.current_time() - began
        waited, later = await read_all(second), trio.current_time() - began
        for stream in (first, second, third):
            await stream.aclose()

    assert [answer.split(b"\r\n")[0] for answer in (refused, waited)] == [b"HTTP/1.1 503 Service Unavailable"] * 2
    assert b"retry-after: 1" in waited
    assert at_once < 1
    assert 7 <= later < 8.5
    assert [event.slots for event in service.events if isinstance(event, SlotsTaken)] == [1]
    assert [log["event"] for log in service.logs] == ["all slots are taken: requests wait"]


async def test_why_requests_wait_is_told_when_it_changes(web: Any, autojump_clock: trio.testing.MockClock) -> None:
    release = trio.Event()

    async def stuck(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await App()(scope, receive, send)

    async with web(stuck, concurrency=1) as service, trio.open_nursery() as nursery:
        for is_paused in (True, True, False, False):
            service.intake.is_paused = is_paused
            nursery.start_soon(service.ask, CLOSE)
            await trio.testing.wait_all_tasks_blocked(0.01)
        release.set()

    paused = "the dispatcher is paused: requests wait, and websockets are refused"
    assert [log["event"] for log in service.logs] == [paused, "all slots are taken: requests wait"]
    assert [event.slots for event in service.events if isinstance(event, SlotsTaken)] == [1]


# --- HTTP/1.1 in detail ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "host", "length", "status"), [("/", "a", 99_999_999, 413), ("/other", "a", 5, 404), ("/", "a b", 5, 400)]
)
async def test_nothing_is_asked_for_that_is_refused(web: Any, target: str, host: str, length: int, status: int) -> None:
    request = f"POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    async with web({"/x": App()} if status == 404 else App()) as service, await service.connect() as client:
        await client.send_all(request.encode())
        received = await read_all(client)

    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert b"100 Continue" not in received


async def test_a_body_is_asked_for_when_the_application_wants_it(web: Any) -> None:
    request = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
    async with web(App()) as service, await service.connect() as client:
        await client.send_all(request)
        asked = await client.receive_some()
        await client.send_all(b"x")
        received = await read_all(client)

    assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [("http://evil.example/s", "/s", b""), ("http://h?x=1", "/", b"x=1"), ("http://h?x=/s", "/", b"x=/s")],
)
async def test_a_whole_url_replaces_the_host_and_keeps_its_query(
    web: Any, target: str, path: str, query: bytes
) -> None:
    app = App()
    async with web(app) as service:
        await service.ask(f"GET {target} HTTP/1.1\r\nHost: good.example\r\nConnection: close\r\n\r\n".encode())

    host = target.removeprefix("http://").partition("/")[0].partition("?")[0].encode()
    assert app.seen == [(path, "http.request", host, query)]


async def test_a_404_has_a_reason_and_keeps_the_connection(web: Any) -> None:
    async with web({"/x": App()}) as service, await service.connect() as client:
        answers = []
        for _ in range(2):
            await client.send_all(GET)
            answers.append(await client.receive_some())

    assert [answer.split(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 404 Not Found"] * 2


async def test_an_answer_before_a_stop_says_that_it_is_the_last(web: Any) -> None:
    release = trio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async with web(slow) as service, await service.connect() as client:
        await client.send_all(GET)
        await service.intake.wait(lambda intake: intake.active)
        await service.stop_accepting()
        release.set()
        received = await read_all(client)

    assert b"connection: close\r\n" in received


async def test_a_client_that_never_reads_is_reset(web: Any, autojump_clock: trio.testing.MockClock) -> None:
    async def flood(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % 10**9)]})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})

    async with web(flood, write_timeout=5) as service, await service.connect() as client:
        await client.send_all(GET)
        await service.wait_connections(1)
        with trio.fail_after(20):
            while service.connections:  # noqa: ASYNC110  nothing tells
                await trio.sleep(1)
        code = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    assert code == 104


async def test_many_small_chunks_cost_little_and_arrive_together(web: Any) -> None:
    messages = 0

    async def counts(scope: Any, receive: Any, send: Any) -> None:
        nonlocal messages
        more = True
        while more:
            messages += 1
            more = (await receive())["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with web(counts) as service:
        received = await service.ask(head + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n")

    assert received.startswith(b"HTTP/1.1 200")
    assert messages <= 10


async def test_requests_are_served_that_came_before_the_stop(web: Any) -> None:
    """They lie in the socket, unread, and their clients have been let in."""
    async with web(App()) as service, await service.connect() as used, await service.connect() as waiting:
        await used.send_all(GET)
        await used.receive_some()
        await waiting.send_all(GET)
        await used.send_all(GET)
        late = socket.create_connection(("127.0.0.1", service.port))
        late.sendall(GET)
        service.accepting.cancel()
        with trio.fail_after(4):
            answers = [await read_all(used), await read_all(waiting)]
            answers.append(await trio.to_thread.run_sync(late.recv, 1000))
        late.close()

    assert [answer[:15] for answer in answers] == [b"HTTP/1.1 200 OK"] * 3


async def test_a_limit_of_its_worker_takes_the_place_of_the_dispatchers(web: Any, autojump_clock: object) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep_forever()

    options = {"request_timeout": 3.0, "max_body_bytes": 10}
    async with web({"/": App(), "/slow": slow}, options={"/slow": options}) as service:
        statuses = []
        for path, size in (("/", 100), ("/slow", 11), ("/slow", 10)):
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
            async with await service.connect() as client:
                await client.send_all(head.encode() + b"x" * size)
                statuses.append((await read_all(client)).split()[1])

    assert statuses == [b"200", b"413", b"504"]


async def test_time_in_which_the_application_does_not_read_is_not_the_clients(
    web: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            more = (await receive())["more_body"]
            await trio.sleep(60)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async with web(slow, body_timeout=10) as service, httpx.AsyncClient(base_url=service.url, timeout=None) as client:
        response = await client.post("/", content=b"x" * 300_000)

    assert response.status_code == 200
