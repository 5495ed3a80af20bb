"""What is told of each request: an event, and a line in the access log."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
from kernel_web import RequestDone

from kernel.errors import StartupError

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
        access = service.dispatcher._server.shared.access
        dropped = access.dropped

    assert statuses == [201] * 3
    assert dropped == 3
