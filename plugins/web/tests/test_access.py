"""What is told of each request: an event, and a line in the access log."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
from kernel_web import RequestDone
from kernel_web.asgi.access import LINES_MAX, TEXT_MAX, AccessLog, as_json, as_text
from kernel_web.asgi.ended import TOGETHER_MAX
from kernel_web.asgi.missed import Missed
from kernel_web.wire.lines import LinesFile

from kernel import CountsAsked, RequestCounted, RequestsDone
from kernel.abc import hearing
from kernel.errors import StartupError
from kernel.testing import fake_context

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        return
    more = True
    while more:
        more = (await receive())["more_body"]
    if scope["path"] == "/fails":
        raise ValueError
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": b"four", "more_body": True})
    await send({"type": "http.response.body", "body": b"more"})


def done(service: Any) -> list[RequestDone]:
    return [event for event in service.events if isinstance(event, RequestDone)]


@pytest.mark.parametrize("http2", [False, True], ids=["1.1", "2"])
async def test_each_request_is_an_event(web: Any, http2: bool) -> None:
    options: dict[str, Any] = {"http1": not http2, "http2": http2}
    async with web({"/x": app}, h2c=True) as service, httpx.AsyncClient(base_url=service.url, **options) as client:
        await client.post("/x/y?secret=1", content=b"abc", headers={"X-Request-ID": "r-1"})
        await client.get("/other")
        await client.get("/x/fails") if http2 else None
    first, second = done(service)[:2]

    assert attrs.asdict(first, filter=attrs.filters.exclude("request")) == {
        "component": "dispatcher/web",
        "worker": "worker/app0",
        "method": "POST",
        "path": "/x/y",
        "version": "2" if http2 else "1.1",
        "status": 201,
        "seconds": first.seconds,
        "received": 3,
        "sent": 8,
        "client": "127.0.0.1",
        "request_id": "r-1",
    }
    assert 0 <= first.seconds < 5
    assert (second.status, second.worker, second.path) == (404, "", "/other")
    assert len(second.request_id) > 10


async def test_what_fails_or_is_cut_is_told_too(web: Any) -> None:
    async def stuck(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep_forever()

    async with web({"/fails": app, "/stuck": stuck}) as service:
        failed = await service.ask(b"GET /fails HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        async with await service.connect() as socket:
            await socket.send_all(UPGRADE.replace(b"/ws", b"/fails/ws"))
            await socket.receive_some()
        await service.wait_connections(0)
        async with await service.connect() as client:
            await client.send_all(b"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n")
            await service.intake.wait(lambda intake: intake.active)
            await service.stop()

    assert failed.startswith(b"HTTP/1.1 500")
    assert [(event.method, event.status) for event in done(service)] == [("GET", 500), ("websocket", 101), ("GET", 503)]


@pytest.mark.parametrize("style", ["text", "json"])
async def test_the_access_log_has_a_line_for_each(web: Any, tmp_path: Path, style: str) -> None:
    path = tmp_path / "access.log"
    async with (
        web(app, access_log=style, access_log_file=str(path)) as service,
        httpx.AsyncClient(base_url=service.url) as client,
    ):
        await client.post('/a"b?secret', content=b"abc", headers={"X-Request-ID": "r-1"})
        await client.get("/b", headers={"X-Request-ID": "bad\tid"})
    lines = (await trio.Path(path).read_text()).splitlines()

    assert len(lines) == 2
    assert "secret" not in "".join(lines)
    if style == "json":
        first = json.loads(lines[0])
        assert {key: first[key] for key in ("method", "status", "received", "sent", "worker", "request_id")} == {
            "method": "POST", "status": 201, "received": 3, "sent": 8, "worker": "worker/app0", "request_id": "r-1",
        }  # fmt: skip
    else:
        wanted = r'127\.0\.0\.1 \[[-0-9T:]+Z\] "POST /a%22b HTTP/1\.1" 201 8 0\.\d+ worker/app0 r-1'
        assert re.fullmatch(wanted, lines[0])
        assert "\t" not in lines[1]


async def test_an_access_log_that_cannot_be_opened_is_named(web: Any, tmp_path: Path) -> None:
    with pytest.RaisesGroup(StartupError, flatten_subgroups=True):
        async with web(app, access_log="text", access_log_file=str(tmp_path / "no" / "log")):
            pass


async def test_what_cannot_be_written_costs_no_request(web: Any) -> None:
    async with (
        web(app, access_log="text", access_log_file="/dev/full") as service,
        httpx.AsyncClient(base_url=service.url) as client,
    ):
        statuses = [(await client.get("/")).status_code for _ in range(3)]
        await trio.sleep(0.3)
        access = service.dispatcher._server.shared.ended.access
        dropped = access.dropped

    assert statuses == [201] * 3
    assert dropped == 3


async def test_requests_are_told_together_to_who_counts_them(web: Any) -> None:
    portions: list[RequestsDone] = []
    told = trio.Event()

    def hear(event: RequestsDone) -> None:
        portions.append(event)
        if len(portions) > 1:
            told.set()

    async with web(app) as service, httpx.AsyncClient(base_url=service.url) as client:
        context = service.dispatcher.context
        with hearing(context, (hear, RequestsDone)):
            for name in "ab":
                await client.post(f"/{name}", content=b"abc")
            context.emit(CountsAsked(component="dispatcher/metrics"))
            at_once = list(portions)
            await client.post("/c", content=b"abc")
            with trio.fail_after(5):
                await told.wait()
    counted = [one for portion in portions for one in portion.requests]

    assert [len(portion.requests) for portion in at_once] == [2]
    assert {type(event) for event in done(service)} == {RequestCounted}
    assert counted == [
        (event.worker, event.method, event.status, event.seconds, event.received, event.sent) for event in done(service)
    ]
    assert portions[0].component == "dispatcher/web"


async def test_of_many_requests_each_has_its_line_and_in_their_order(web: Any, tmp_path: Path) -> None:
    path, many = tmp_path / "access.log", 3 * TOGETHER_MAX + 7
    asked = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(many))
    async with web(app, access_log="json", access_log_file=str(path)) as service:
        await service.ask(asked, b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    lines = [json.loads(line) for line in (await trio.Path(path).read_text()).splitlines()]

    assert [line["path"] for line in lines] == [*(f"/{number}" for number in range(many)), "/last"]
    assert [line["request_id"] for line in lines] == [event.request_id for event in done(service)]
    assert len({line["request_id"] for line in lines}) == many + 1


async def test_what_a_stop_cuts_has_a_line_and_the_file_is_closed(web: Any, tmp_path: Path) -> None:
    async def stuck(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        await trio.sleep_forever()

    path = tmp_path / "access.log"
    async with (
        web(stuck, access_log="text", access_log_file=str(path)) as service,
        await service.connect() as client,
    ):
        await client.send_all(b"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.receive_some()
        was_open = _is_open(path)
        await service.stop()
        is_open = _is_open(path)

    assert len((await trio.Path(path).read_text()).splitlines()) == 1
    assert (was_open, is_open) == (True, False)


def _is_open(path: Path) -> bool:
    descriptors = (Path(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd"))
    return any(one.is_symlink() and os.readlink(one) == str(path) for one in descriptors)


@pytest.mark.slow
async def test_a_log_that_nobody_reads_holds_no_stop(web: Any, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(reader, bytes(4096))
    try:
        async with web(app, access_log="text", access_log_file=str(path)) as service:
            async with httpx.AsyncClient(base_url=service.url) as client:
                await client.get("/")
            await trio.sleep(0.4)
            took = await service.stop()
    finally:
        with suppress(BlockingIOError):
            while True:
                os.read(reader, 65536)
        os.close(reader)

    assert took < 3


def access_log(lines_of: Any, path: Path = Path("/dev/null"), events: list[Any] | None = None) -> AccessLog:
    return AccessLog(LinesFile(path), lines_of, Missed(fake_context("dispatcher/web", events=events), "a.log"))


async def test_a_line_that_cannot_be_made_costs_no_other() -> None:
    await trio.lowlevel.checkpoint()
    log = access_log(as_json)
    rows = [("worker/a", "GET", status, 0.5, 0, 5) for status in (200, 201, 202)]
    bad: Any = ("127.0.0.1", None, "1.1", "x")
    log.add(rows, [("127.0.0.1", b"/a", "1.1", "x"), bad, ("", b"/c", "2", "")], "now")
    lines = [json.loads(line) for line in log._portions[0][0].splitlines()]

    assert [(line["status"], line["client"]) for line in lines] == [(200, "127.0.0.1"), (202, "")]
    assert log.dropped == 1


async def test_lines_that_wait_are_bounded() -> None:
    await trio.lowlevel.checkpoint()
    log = access_log(as_text)
    row, seen = ("", "GET", 404, 0.5, 0, 5), ("127.0.0.1", b"/a", "1.1", "x")
    log.add([row] * (LINES_MAX - 1), [seen] * (LINES_MAX - 1), "now")
    log.add([row] * 3, [seen] * 3, "now")
    log.add([row], [seen], "now")

    assert sum(text.count("\n") for text, _ in log._portions) == LINES_MAX
    assert log.dropped == 3


async def test_characters_that_wait_are_bounded() -> None:
    await trio.lowlevel.checkpoint()
    log = access_log(as_text)
    row, seen = ("", "GET", 404, 0.5, 0, 5), ("127.0.0.1", b"/" + b"a" * (TEXT_MAX // 4), "1.1", "x")
    for _ in range(6):
        log.add([row], [seen], "now")

    assert sum(count for _, count in log._portions) == 4
    assert log.dropped == 2


def test_a_record_is_one_line_of_json_whatever_is_in_it() -> None:
    seen = ("127.0.0.1", b'/a"b\n\r\\\x00\x1b\xe9', "1.1", "x")
    (line,) = as_json([("worker/a", "GET", 200, 0.5, 0, 5)], [seen], "now")

    assert json.loads(line)["path"] == '/a"b\n\r\\\x00\x1bé'
    assert line.isascii()
    assert line.splitlines() == [line[:-1]]
