"""Slow, greedy and hostile clients: each is bounded, and costs nobody else anything."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
import trio.testing

CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


class Counting:
    """Answers with what its requests received, and remembers it."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        size = len(message.get("body", b""))
        while message.get("more_body"):
            message = await receive()
            size += len(message.get("body", b""))
        self.seen.append((size, message["type"]))
        body = b"%d" % size
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def drip(stream: trio.SocketStream, data: bytes, every: float) -> None:
    try:
        while True:
            await stream.send_all(data)
            await trio.sleep(every)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def read_all(stream: trio.SocketStream) -> bytes:
    received = b""
    try:
        async for chunk in stream:
            received += chunk
    except trio.BrokenResourceError:
        pass
    return received


@pytest.mark.parametrize(
    "opening", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"], ids=["silent", "line", "head"]
)
async def test_headers_have_a_deadline(web: Any, opening: bytes) -> None:
    async with web(Counting(), header_timeout=0.1) as service, await service.connect() as client:
        await client.send_all(opening)
        with trio.fail_after(4):
            received = await read_all(client)

    assert received == b""


@pytest.mark.parametrize("first", [b"", CLOSE.replace(b"Connection: close\r\n", b"")], ids=["first", "second"])
async def test_headers_that_drip_do_not_move_their_deadline(web: Any, first: bytes) -> None:
    async with web(Counting(), header_timeout=0.1, keep_alive_timeout=1) as service:  # noqa: SIM117  the inner ends first, to be looked at after
        async with await service.connect() as client, trio.open_nursery() as nursery:
            await client.send_all(first + b"GET / HTTP/1.1\r\n")
            nursery.start_soon(drip, client, b"A: b\r\n", 0.02)
            began = trio.current_time()
            with trio.fail_after(4):
                await read_all(client)
            nursery.cancel_scope.cancel()

    assert trio.current_time() - began < 0.6


async def test_an_idle_connection_is_closed(web: Any) -> None:
    async with web(Counting(), keep_alive_timeout=0.05) as service, await service.connect() as client:
        await client.send_all(CLOSE.replace(b"Connection: close\r\n", b""))
        with trio.fail_after(4):
            received = await read_all(client)

    assert received.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("dripping", [False, True], ids=["stalled", "dripping"])
async def test_a_body_has_a_deadline_and_half_of_it_is_no_success(web: Any, dripping: bool) -> None:
    app = Counting()
    async with web(app, body_timeout=0.1) as service:
        async with await service.connect() as client, trio.open_nursery() as nursery:
            await client.send_all(POST % 100_000 + b"x" * 50_000)
            if dripping:
                nursery.start_soon(drip, client, b"x", 0.02)
            with trio.fail_after(4):
                received = await read_all(client)
            nursery.cancel_scope.cancel()
        await service.intake.wait(lambda intake: not intake.active)

    assert received.startswith(b"HTTP/1.1 408")
    assert b"200" not in received
    assert [kind for _, kind in app.seen] == ["http.disconnect"]
    assert service.logs == []


async def test_a_client_that_leaves_in_the_middle_of_its_body_gets_no_success(web: Any) -> None:
    app = Counting()
    async with web(app) as service, await service.connect() as client:
        await client.send_all(POST % 100_000 + b"x" * 50_000)
        await service.intake.wait(lambda intake: intake.active)
        await client.send_eof()
        with trio.fail_after(4):
            received = await read_all(client)
        await service.intake.wait(lambda intake: not intake.active)

    assert not received.startswith(b"HTTP/1.1 200")
    assert [kind for _, kind in app.seen] == ["http.disconnect"]


@pytest.mark.parametrize("extra", [-1, 0, 1])
async def test_a_declared_body_is_limited(web: Any, extra: int) -> None:
    app = Counting()
    size = 1000 + extra
    async with web(app, max_body_bytes=1000) as service:
        received = await service.ask((POST % size).replace(b"Host", b"Connection: close\r\nHost") + b"x" * size)

    assert received.startswith(b"HTTP/1.1 413" if extra > 0 else b"HTTP/1.1 200")
    assert app.seen == ([] if extra > 0 else [(size, "http.request")])


@pytest.mark.parametrize("extra", [0, 1])
async def test_a_chunked_body_is_limited(web: Any, extra: int) -> None:
    app = Counting()
    chunks = b"64\r\n" + b"x" * 100 + b"\r\n"
    last = b"%x\r\n%s\r\n0\r\n\r\n" % (100 + extra, b"x" * (100 + extra))
    async with web(app, max_body_bytes=1000, body_buffer_bytes=0) as service:
        async with await service.connect() as client:
            await client.send_all(CHUNKED.replace(b"Host", b"Connection: close\r\nHost") + chunks * 9)
            await service.intake.wait(lambda intake: intake.active)
            await client.send_all(last)
            with trio.fail_after(4):
                received = await read_all(client)
        await service.intake.wait(lambda intake: not intake.active)

    assert received.startswith(b"HTTP/1.1 413" if extra else b"HTTP/1.1 200")
    assert app.seen == ([(900, "http.disconnect")] if extra else [(1000, "http.request")])


@pytest.mark.slow
async def test_a_body_that_is_refused_is_not_read_for_ever(web: Any) -> None:
    async with web(Counting(), max_body_bytes=10) as service:  # noqa: SIM117  the inner ends first, to be looked at after
        async with await service.connect() as client, trio.open_nursery() as nursery:
            await client.send_all(POST % 10**9)
            nursery.start_soon(drip, client, b"x" * 1000, 0.01)
            with trio.fail_after(4):
                received = await client.receive_some()
                await service.wait_connections(0)
            nursery.cancel_scope.cancel()

    assert received.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("parts", [1, 2], ids=["at once", "in two"])
async def test_headers_are_limited(web: Any, parts: int) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: " + b"x" * 2000 + b"\r\n\r\n"
    async with web(Counting(), max_header_bytes=1000) as service, await service.connect() as client:
        if parts == 1:
            await client.send_all(head)
        else:
            await client.send_all(head[:1500])
        with trio.fail_after(4):
            received = await read_all(client)

    assert received.startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    "request_bytes",
    [
        CHUNKED.replace(b"Host", b"Content-Length: 5\r\nHost") + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n",
        CHUNKED + b"xyz\r\n",
        (POST % 5).replace(b"Host", b"Content-Length: 6\r\nHost") + b"12345",
        b"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=["both lengths", "bad chunk", "two lengths", "space before colon", "no host", "tls to plaintext"],
)
async def test_a_request_that_can_be_read_in_two_ways_is_refused(web: Any, request_bytes: bytes) -> None:
    app = Counting()
    async with web(app) as service:
        received = await service.ask(request_bytes)

    assert received.startswith(b"HTTP/1.1 400")
    assert received.count(b"HTTP/1.1") == 1
    assert [seen for seen in app.seen if seen[1] == "http.request"] == []


async def test_an_upgrade_to_http2_is_ignored_and_prior_knowledge_refused(web: Any) -> None:
    upgrade = CLOSE.replace(b"close", b"close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk")
    async with web(Counting()) as service:
        upgraded = await service.ask(upgrade)
        known = await service.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

    assert upgraded.startswith(b"HTTP/1.1 200")
    assert not known.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_ip"])
async def test_connections_beyond_the_limit_are_closed(web: Any, limit: str) -> None:
    async with web(Counting(), **{limit: 2}) as service:
        first, second = await service.connect(), await service.connect()
        await service.wait_connections(2)
        async with await service.connect() as third:
            with trio.fail_after(4):
                refused = await read_all(third)
        await first.aclose()
        await service.wait_connections(1)
        answered = await service.ask(CLOSE)
        await second.aclose()

    assert refused == b""
    assert answered.startswith(b"HTTP/1.1 200")
    assert [log["event"] for log in service.logs] == ["connections are refused"]


async def test_clients_that_come_together_are_let_in_together(web: Any) -> None:
    async with web(Counting()) as service:
        clients = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(60)]
        for _ in range(4):
            await trio.lowlevel.checkpoint()
        let_in = service.connections
        for client in clients:
            client.close()
        await service.wait_connections(0)

    assert let_in == 60


@pytest.mark.slow
async def test_a_hundred_clients_at_once_are_all_answered(web: Any) -> None:
    async with web(Counting()) as service:
        received: list[bytes] = []

        async def ask() -> None:
            received.append(await service.ask(CLOSE))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)

    assert sum(answer.startswith(b"HTTP/1.1 200") for answer in received) == 100
    assert service.connections == 0


async def test_a_worker_may_have_a_limit_of_its_own_and_costs_others_nothing(web: Any) -> None:
    release, most, running = trio.Event(), 0, 0

    async def narrow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        await Counting()(scope, receive, send)

    options = {"/narrow": {"concurrency": 2}}
    answers: list[bytes] = []
    async with (
        web({"/narrow": narrow, "/": Counting()}, options=options, max_waiting=3, concurrency=5) as service,
        trio.open_nursery() as nursery,
    ):

        async def ask(path: bytes) -> None:
            answers.append(await service.ask(CLOSE.replace(b"/", path, 1)))

        for _ in range(5):
            nursery.start_soon(ask, b"/narrow")
        await trio.testing.wait_all_tasks_blocked(0.01)
        await ask(b"/narrow")  # nobody else may wait
        await ask(b"/")
        in_slots = len(service.intake.active)
        release.set()

    assert [answer[9:12] for answer in answers] == [b"503", b"200", *[b"200"] * 5]
    assert in_slots == 2
    assert most == 2


async def test_who_waits_for_a_worker_is_sent_away_at_the_stop(web: Any) -> None:
    async def busy(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep_forever()

    answers: list[bytes] = []
    async with web({"/": busy}, options={"/": {"concurrency": 1}}) as service, trio.open_nursery() as nursery:

        async def ask() -> None:
            answers.append(await service.ask(CLOSE))

        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await service.stop_accepting()
        with trio.fail_after(4):
            while not answers:  # noqa: ASYNC110  nothing tells
                await trio.sleep(0.001)
        await service.stop()

    assert [answer[9:12] for answer in answers] == [b"503", b"503"]


async def test_the_system_keeps_little_for_a_client_that_does_not_read(web: Any) -> None:
    sent = 0

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 20_000, "more_body": True})
            sent += 20_000

    async with web(endless) as service:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", service.port))
            client.sendall(CLOSE)
            await trio.testing.wait_all_tasks_blocked(0.05)
        seen = sent
        await service.stop()

    assert 0 < seen < 1_000_000  # megabytes, where nothing says otherwise
