"""What the dispatcher answers itself has its line and is counted, with as much as could be read of what was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame
from kernel_web import RequestDone

from kernel import RequestsDone
from kernel.abc import hearing

from .test_http2 import open_client

TOO_LONG = b"a" * 20_000
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/x/cut":
        await trio.sleep_forever()
    if scope["type"] == "websocket" and scope["path"] == "/ws/answers":
        await send({"type": "websocket.http.response.start", "status": 409, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"taken"})
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})
        return
    raise RuntimeError("as it does")


def told(service: Any) -> list[tuple[Any, ...]]:
    done = [event for event in service.events if isinstance(event, RequestDone)]
    return [(event.worker, event.method, event.path, event.version, event.status, event.sent) for event in done]


UNREAD = ("", "-", "-", "-")
READ = [
    (b"garbage\r\n\r\n", *UNREAD, 400),
    (b"\x16\x03\x01\x00\xff\n", *UNREAD, 400),
    (b'F"OO /x HTTP/1.1\r\nHost: a\r\n\r\n', *UNREAD, 400),
    (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", *UNREAD, 400),
    (b"GET /" + TOO_LONG + b" HTTP/1.1\r\nHost: a\r\n\r\n", "", "GET", "-", "-", 414),
    (TOO_LONG, *UNREAD, 414),
    (b"GET /x?secret HTTP/1.1\r\nHost: a\r\nX: " + TOO_LONG + b"\r\n\r\n", "", "GET", "/x", "1.1", 431),
    (b"GET /x HTTP/1.1\r\nHost: a\r\nX: " + TOO_LONG, "", "GET", "/x", "1.1", 431),
    (b"GET /x HTTP/1.1\r\nHost : a\r\n\r\n", "", "GET", "/x", "1.1", 400),
    (b"GET /x HTTP/1.1\r\nHost: a\n\r\n", "", "GET", "/x", "1.1", 400),
    (b"POST /x?secret HTTP/1.1\r\n\r\n", "", "POST", "/x", "1.1", 400),
    (b"FOO /x HTTP/1.1\r\nHost: a/b\r\n\r\n", "", "FOO", "/x", "1.1", 400),
    (b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n", "", "GET", "/x", "2.0", 505),
    (b"GET /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "", "GET", "/x", "1.1", 501),
    (b"GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n", "", "GET", "/x", "1.1", 413),
    (b"GET /x HTTP/1.1\r\nHost: a\r\nExpect: a cake\r\n\r\n", "", "GET", "/x", "1.1", 417),
    (b"CONNECT b:443 HTTP/1.1\r\nHost: b\r\n\r\n", "", "CONNECT", "b:443", "1.1", 501),
    (b"GET http://me:secret@a/x?secret HTTP/1.1\r\nHost: a\r\n\r\n", "", "GET", "-", "1.1", 400),
    (b"HEAD /x HTTP/1.1\r\n\r\n", "", "HEAD", "/x", "1.1", 400),
    (b"GET /other?secret HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "", "GET", "/other", "1.1", 404),
    (b"HEAD /other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "", "HEAD", "/other", "1.1", 404),
    (b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "", "OPTIONS", "*", "1.1", 204),
    (b"GET /x HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n", "", "GET", "/x", "1.1", 400),
    (b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "worker/app0", "GET", "/x", "1.1", 500),
    (b"HEAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "worker/app0", "HEAD", "/x", "1.1", 500),
    (b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n", "worker/app0", "PUT", "/x", "1.1", 413),
    (b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "worker/app0", "PUT", "/x", "1.1", 400),
    (b"GET /away HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "worker/app2", "GET", "/away", "1.1", 503),
    (b"GET /x/cut HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "worker/app0", "GET", "/x/cut", "1.1", 504),
    (UPGRADE + b"\r\n", "worker/app1", "websocket", "/ws", "1.1", 400),
    (UPGRADE.replace(b"13", b"12") + KEY, "worker/app1", "websocket", "/ws", "1.1", 426),
    (UPGRADE + KEY, "worker/app1", "websocket", "/ws", "1.1", 403),
    (UPGRADE.replace(b"/ws", b"/ws/answers") + KEY, "worker/app1", "websocket", "/ws/answers", "1.1", 409),
    (UPGRADE.replace(b"/ws", b"/no") + KEY, "", "GET", "/no", "1.1", 404),
]


@pytest.mark.parametrize(("asked", *("worker", "method", "path", "version", "status")), READ, ids=lambda value: str(value)[:40])  # fmt: skip
async def test_whatever_is_answered_is_told_with_what_was_sent(
    web: Any, tmp_path: Path, asked: bytes, worker: str, method: str, path: str, version: str, status: int
) -> None:
    log, counted = tmp_path / "log", list[Any]()
    workers = {"/x": app, "/ws": app, "/away": app}
    limits: dict[str, Any] = {"allowed_hosts": ["a"], "request_timeout": 0.1}
    async with web(workers, access_log="json", access_log_file=str(log), **limits) as service:
        service.targets["/away"].app = None
        with hearing(service.dispatcher.context, (counted.append, RequestsDone)):
            answer = await service.ask(asked)
            await service.wait_connections(0)
            service.dispatcher._server.shared.ended.tell()
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = [json.loads(line) for line in (await trio.Path(log).read_text()).splitlines()]

    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert told(service) == [(worker, method, path, version, status, len(body))]
    assert [(line["method"], line["path"], line["status"], line["sent"]) for line in lines] == [
        (method, path, status, len(body))
    ]
    assert [(row[0], row[1], row[2], row[5]) for event in counted for row in event.requests] == [
        (worker, method, status, len(body))
    ]
    assert "secret" not in str(lines)


@pytest.mark.parametrize(
    "said", [b"", b"GET /x", b"GET /x HTTP/1.1\r\nHost: a\r\n", b"\r\n"], ids=["nothing", "half a line", "half a head", "a line end"]
)  # fmt: skip
async def test_who_gets_no_answer_has_no_line(web: Any, said: bytes) -> None:
    async with web(app, header_timeout=0.1) as service:
        answer = await service.ask(said)

    assert answer == b""
    assert told(service) == []


async def test_a_line_has_the_request_id_and_the_client_of_what_was_refused(web: Any) -> None:
    async with web(app, trusted_proxies=["127.0.0.1"], root_path="/api") as service:
        proxied = b"X-Forwarded-For: 192.0.2.1\r\nX-Request-ID: r-1\r\n"
        await service.ask(b"GET /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n" + proxied + b"\r\n")
        await service.ask(b"GET x HTTP/1.1\r\nHost: a\r\n" + proxied + b"\r\n")
    done = [event for event in service.events if isinstance(event, RequestDone)]

    assert [(event.client, event.request_id, event.path) for event in done] == [
        ("192.0.2.1", "r-1", "/api/x"),
        ("192.0.2.1", "r-1", "x"),
    ]


async def test_who_asks_the_server_as_a_whole_is_told_what_may_be_asked(web: Any) -> None:
    async with web(app, h2c=True) as service:
        answer = await service.ask(
            b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        client = await open_client(service)
        await client.send(client.request(1, method=b"OPTIONS", path=b"*"))
        fields = (await client.next(HeadersFrame)).fields
        await client.stream.aclose()
    allowed = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

    assert answer.count(b"HTTP/1.1 204 No Content\r\n") == answer.count(b"\r\nallow: %b\r\n" % allowed) == 2
    assert b"content-length" not in answer
    assert (fields[b":status"], fields[b"allow"]) == (b"204", allowed)
    assert b"content-length" not in fields


@pytest.mark.parametrize(
    ("pseudo", "more", "expected"),
    [
        ({"path": b"/other?secret"}, {}, ("", "GET", "/other", 404)),
        ({"path": b"/other", "method": b"HEAD"}, {}, ("", "HEAD", "/other", 404)),
        ({"authority": b"b"}, {}, ("", "GET", "/", 400)),
        ({"path": b"/x"}, {b"content-length": b"2000000"}, ("", "GET", "/x", 413)),
        ({"path": b"/x"}, {}, ("worker/app0", "GET", "/x", 500)),
        ({"path": b"/x", "method": b"HEAD"}, {}, ("worker/app0", "HEAD", "/x", 500)),
        ({"path": b"/x\xff"}, {}, ("", "GET", "-", 0)),
        ({"path": b"/x", "method": b"G\xff"}, {}, ("", "-", "/x", 0)),
        ({"path": b"/x", "method": b"CONNECT", "protocol": b"ftp"}, {}, ("", "CONNECT", "/x", 0)),
        (
            {"path": b"/ws", "method": b"CONNECT", "protocol": b"websocket"},
            {},
            ("worker/app1", "websocket", "/ws", 400),
        ),
        (
            {"path": b"/ws", "method": b"CONNECT", "protocol": b"websocket"},
            {b"sec-websocket-version": b"13"},
            ("worker/app1", "websocket", "/ws", 403),
        ),
        (
            {"path": b"/ws/answers", "method": b"CONNECT", "protocol": b"websocket"},
            {b"sec-websocket-version": b"13"},
            ("worker/app1", "websocket", "/ws/answers", 409),
        ),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_over_http2_as_well(
    web: Any, pseudo: dict[str, bytes], more: dict[bytes, bytes], expected: tuple[str, str, str, int]
) -> None:
    async with web({"/x": app, "/ws": app}, h2c=True, allowed_hosts=["a"]) as service:
        client = await open_client(service)
        wanted = {"method": b"GET", "path": b"/", "scheme": b"http", "authority": b"a", **pseudo}
        fields = [(b":" + name.encode(), value) for name, value in wanted.items()]
        await client.send(client.headers(1, [*fields, *more.items()], end=wanted["method"] != b"CONNECT"))
        sent, ended = 0, False
        while not ended:
            frame = await client.next(HeadersFrame, DataFrame, RstStreamFrame)
            sent += len(frame.data) if isinstance(frame, DataFrame) else 0
            ended = isinstance(frame, RstStreamFrame) or "END_STREAM" in frame.flags
        await client.stream.aclose()
        await service.wait_connections(0)

    worker, method, path, status = expected
    assert told(service) == [(worker, method, path, "2", status, sent)]


LONGEST = b"a" * 128


@pytest.mark.parametrize(
    ("sent", "is_taken"),
    [
        ([b"r-1"], True),
        ([b"0Az._:/+=-"], True),
        ([b"  r-1\t"], True),
        ([LONGEST], True),
        ([LONGEST + b"a"], False),
        ([b""], False),
        ([b"r 1"], False),
        ([b"r\t1"], False),
        ([b'"r-1"'], False),
        ([b"r,1"], False),
        ([b"{r-1}"], False),
        ([b"r\xe9"], False),
        (["r\u00e9".encode()], False),
        ([b"r-1", b"r-2"], True),
        ([b"r 1", b"r-2"], False),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_the_name_that_a_client_gives_a_request_is_taken_if_it_is_one(
    web: Any, sent: list[bytes], is_taken: bool
) -> None:
    fields = b"".join(b"X-Request-ID: %b\r\n" % value for value in sent)
    async with web({"/x": app}) as service:
        await service.ask(b"GET /other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + fields + b"\r\n")
    (name,) = [event.request_id for event in service.events if isinstance(event, RequestDone)]

    assert (name == sent[0].strip().decode("latin-1")) == is_taken
    assert name.isascii()
    assert 3 <= len(name) <= 128
