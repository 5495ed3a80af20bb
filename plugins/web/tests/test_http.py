"""HTTP/1.1: requests, routing, and applications that misbehave."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import trio

from kernel.errors import QueueFullError, StorageFullError, UnavailableError, UnknownOutcomeError

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def answer(send: Any, body: bytes = b"hello", status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive: Any) -> tuple[bytes, str]:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body, message["type"]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what it got."""
    body, _ = await read_body(receive)
    await answer(send, f"{scope['method']} {scope['path']} {scope['root_path']}|".encode() + body)


@pytest.mark.parametrize("size", [0, 10, 300_000], ids=str)
async def test_a_body_arrives_whole(web: Any, size: int) -> None:
    async with web(echo) as service, httpx.AsyncClient(base_url=service.url) as client:
        response = await client.post("/x", content=b"b" * size)

    assert response.status_code == 200
    assert response.content == b"POST /x |" + b"b" * size
    assert "server" not in response.headers


async def test_a_chunked_body_arrives_whole(web: Any) -> None:
    async def chunks() -> Any:
        for _ in range(5):
            yield b"c" * 1000

    async with web(echo) as service, httpx.AsyncClient(base_url=service.url) as client:
        response = await client.post("/", content=chunks())

    assert response.content == b"POST / |" + b"c" * 5000


async def test_a_connection_serves_many_requests(web: Any) -> None:
    async with web(echo) as service, await service.connect() as client:
        for _ in range(3):
            await client.send_all(GET)
            received = b""
            with trio.fail_after(4):
                while b"GET / |" not in received:
                    received += await client.receive_some()
            assert received.startswith(b"HTTP/1.1 200")

        assert service.connections == 1


async def test_pipelined_requests_are_answered_in_order(web: Any) -> None:
    async with web(echo) as service:
        received = await service.ask(GET.replace(b"/ ", b"/1 ") + GET.replace(b"/ ", b"/2 ") + CLOSE)

    assert [received.find(b"GET /1 |"), received.find(b"GET /2 |"), received.find(b"GET / |")] == sorted(
        received.find(part) for part in (b"GET /1 |", b"GET /2 |", b"GET / |")
    )
    assert b"GET /1 |" in received


async def test_the_head_leaves_with_the_body(web: Any) -> None:
    async with web(echo) as service, await service.connect() as client:
        await client.send_all(GET)
        first = await client.receive_some()

    assert first.startswith(b"HTTP/1.1 200")
    assert first.endswith(b"GET / |")


async def test_an_answer_is_streamed_as_it_is_made(web: Any) -> None:
    go_on = trio.Event()
    parts: list[bytes] = []

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"second"})

    async with web(stream) as service, httpx.AsyncClient(base_url=service.url) as client:  # noqa: SIM117  the inner ends first, to be looked at after
        async with client.stream("GET", "/") as response:
            async for part in response.aiter_raw():
                parts.append(part)
                go_on.set()

    assert parts == [b"first", b"second"]


async def test_the_longest_prefix_wins_and_becomes_the_root_path(web: Any) -> None:
    async with (
        web({"/": echo, "/api": echo, "/api/v2": echo}) as service,
        httpx.AsyncClient(base_url=service.url) as client,
    ):
        seen = [(await client.get(path)).text for path in ("/", "/api", "/api/x", "/apis", "/api/v2/y", "/%61pi")]

    assert seen == [
        "GET / |",
        "GET /api /api|",
        "GET /api/x /api|",
        "GET /apis |",
        "GET /api/v2/y /api/v2|",
        "GET /api /api|",
    ]
    assert [worker for _, worker in service.intake.entered] == ["app0", "app1", "app1", "app0", "app2", "app1"]


async def test_an_unknown_prefix_is_not_found(web: Any) -> None:
    async with web({"/api": echo}) as service, httpx.AsyncClient(base_url=service.url) as client:
        response = await client.get("/other")

    assert response.status_code == 404
    assert response.text == "404 Not Found\n"
    assert service.intake.entered == []


async def test_a_worker_that_is_not_ready_is_unavailable(web: Any) -> None:
    async with web(echo) as service, httpx.AsyncClient(base_url=service.url) as client:
        service.targets["/"].app = None
        response = await client.get("/")

    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


async def test_a_target_may_be_a_whole_url(web: Any) -> None:
    async with web(echo) as service:
        received = await service.ask(b"GET http://a/b/c?d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    assert received.endswith(b"GET /b/c |")


async def test_requests_beyond_the_concurrency_wait(web: Any) -> None:
    go_on = trio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await answer(send)

    async with web(slow, concurrency=2) as service:
        received: list[bytes] = []

        async def ask() -> None:
            received.append(await service.ask(CLOSE))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
            await service.wait_connections(5)
            await service.intake.wait(lambda intake: len(intake.active) == 2)
            go_on.set()

    assert [answer.startswith(b"HTTP/1.1 200") for answer in received] == [True] * 5


# --- applications that misbehave ------------------------------------------------------------------------------------


async def raises_before(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("secret")


async def raises_with_start(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise ValueError("secret")


async def returns_nothing(scope: Any, receive: Any, send: Any) -> None:
    await receive()


async def sends_nonsense(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "headers": [("text", "not bytes")]})
    await send({"type": "http.response.body", "body": b""})


async def raises_a_group(scope: Any, receive: Any, send: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises_before, scope, receive, send)
        await trio.sleep_forever()


@pytest.mark.parametrize(
    "app", [raises_before, raises_with_start, returns_nothing, sends_nonsense, raises_a_group], ids=lambda a: a.__name__
)
async def test_an_application_that_fails_before_its_answer_is_a_500(web: Any, app: Any) -> None:
    async with web(app) as service, httpx.AsyncClient(base_url=service.url) as client:
        responses = [await client.get("/"), await client.post("/", content=b"x" * 100)]

    assert [response.status_code for response in responses] == [500, 500]
    assert "secret" not in responses[0].text
    assert [log["worker"] for log in service.logs if log["level"] == "error"] == ["worker/app0"] * 2


@pytest.fixture
def signals_of_our_own() -> Iterator[None]:
    """As in `kernel run`, where no signal raises anything."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


async def kept_cancelled() -> trio.Cancelled:
    """Return a cancellation that is nobody's any more, as a cache of results may keep it."""
    kept: list[trio.Cancelled] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            kept.append(error)
            raise
    return kept[0]


ENDS = [KeyboardInterrupt, SystemExit, GeneratorExit, type("Odd", (BaseException,), {}), trio.Cancelled]


@pytest.mark.usefixtures("signals_of_our_own")
@pytest.mark.parametrize("is_grouped", [False, True])
@pytest.mark.parametrize("kind", ENDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("over", ["http1", "http2", "websocket"])
async def test_what_ends_programs_ends_only_the_request_that_raised_it(
    web: Any, kind: type[BaseException], is_grouped: bool, over: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/fine":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"fine"})
            return
        error = await kept_cancelled() if kind is trio.Cancelled else kind()
        raise BaseExceptionGroup("two", [error, ValueError()]) if is_grouped else error

    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" + KEY
    async with (
        web(app, h2c=True) as service,
        httpx.AsyncClient(base_url=service.url, http1=over != "http2", http2=over == "http2") as client,
    ):
        if over == "websocket":
            status = int((await service.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + upgrade + b"\r\n")).split()[1])
        else:
            status = (await client.get("/")).status_code
        fine = await client.get("/fine")

    assert (status, fine.text) == (500, "fine")
    assert [log["event"] for log in service.logs] == ["the application failed"]


@pytest.fixture
def is_at_a_terminal() -> Iterator[None]:
    """Have a Ctrl-C raise: a shell has what it starts in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("is_at_a_terminal")
async def test_ctrl_c_in_an_application_still_ends_the_program(web: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(BaseExceptionGroup) as caught:
        async with web(app) as service:
            await service.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

    assert caught.value.subgroup(KeyboardInterrupt) is not None


async def test_what_fails_while_it_is_cut_is_told_and_the_cut_goes_on(web: Any) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails, scope, receive, send)
            nursery.start_soon(trio.sleep_forever)

    async with web(app) as service, await service.connect() as client:
        await client.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await service.intake.wait(lambda intake: intake.active)
        await service.stop()
        received = b"".join([chunk async for chunk in client])

    assert received.startswith(b"HTTP/1.1 503 ")
    assert [log["event"] for log in service.logs] == ["the application failed"]


@pytest.mark.parametrize(
    "error", [UnavailableError("x"), UnknownOutcomeError("x"), QueueFullError("x"), StorageFullError("x")], ids=repr
)
async def test_an_application_whose_broker_is_away_is_a_503(web: Any, error: Exception) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    async with web(app) as service, httpx.AsyncClient(base_url=service.url) as client:
        response = await client.get("/")

    assert response.status_code == 503


async def raises_after(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ValueError


async def says_too_little(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
    await send({"type": "http.response.body", "body": b"four"})


async def says_too_much(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"four"})


async def stops_half_way(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})


@pytest.mark.parametrize(
    "app", [raises_after, says_too_little, says_too_much, stops_half_way], ids=lambda app: app.__name__
)
async def test_a_half_answer_is_not_taken_for_a_whole_one(web: Any, app: Any) -> None:
    async with web({"/": app, "/ok": echo}) as service, httpx.AsyncClient(base_url=service.url) as client:
        with pytest.raises(httpx.TransportError):
            await client.get("/")
        after = await client.get("/ok")

    assert after.status_code == 200
    assert [log["level"] for log in service.logs] == ["error"]


async def test_sends_after_the_answer_are_ignored(web: Any) -> None:
    async def talkative(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)
        await answer(send, b"again")
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"

    async with web(talkative) as service, httpx.AsyncClient(base_url=service.url) as client:
        responses = [await client.get("/"), await client.get("/")]

    assert [response.text for response in responses] == ["hello", "hello"]
    assert service.logs == []


async def test_an_application_need_not_receive(web: Any) -> None:
    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    async with web(deaf) as service, httpx.AsyncClient(base_url=service.url) as client:
        responses = [await client.post("/", content=b"x" * 500_000), await client.get("/")]

    assert [response.text for response in responses] == ["hello", "hello"]


async def test_a_client_that_goes_is_told_to_the_application(web: Any) -> None:
    seen: list[str] = []

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([(await receive())["type"], (await receive())["type"]])

    async with web(waits) as service:
        client = await service.connect()
        await client.send_all(GET)
        await service.intake.wait(lambda intake: intake.active)
        await client.aclose()
        await service.intake.wait(lambda intake: not intake.active)

    assert seen == ["http.request", "http.disconnect"]


async def test_sending_to_a_client_that_is_gone_ends_the_application_quietly(web: Any) -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})

    async with web(endless) as service:
        client = await service.connect()
        await client.send_all(GET)
        await client.receive_some()
        await client.aclose()
        await service.intake.wait(lambda intake: not intake.active)

    assert service.logs == []


async def test_a_client_that_closes_its_sending_side_gets_its_answer(web: Any) -> None:
    async with web(echo) as service, await service.connect() as client:
        await client.send_all(GET)
        await client.send_eof()
        with trio.fail_after(4):
            received = await client.receive_some()

    assert received.startswith(b"HTTP/1.1 200")


async def test_an_application_may_bound_its_own_sends(web: Any) -> None:
    """A send that was given up leaves the framing whole: what follows is still understood."""

    async def hasty(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            with trio.move_on_after(0):
                await send({"type": "http.response.body", "body": b"never", "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    async with web(hasty) as service, httpx.AsyncClient(base_url=service.url) as client:
        response = await client.get("/")

    assert response.text == "end"


async def test_a_request_that_takes_too_long_is_a_504(web: Any) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep_forever()

    async with web(slow, request_timeout=0.02) as service, httpx.AsyncClient(base_url=service.url) as client:
        response = await client.get("/")

    assert response.status_code == 504


async def test_an_application_that_needs_asyncio_is_told_so(web: Any) -> None:
    async def sleeps(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1)

    async with web(sleeps) as service, httpx.AsyncClient(base_url=service.url) as client:
        response = await client.get("/")

    assert response.status_code == 500
    assert ["asyncio" in log["event"] for log in service.logs] == [True]
