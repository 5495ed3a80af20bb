"""What comes of requests that are malformed, ambiguous or smuggled: a table, and the core against h11 and itself."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_web.http1.head import Head, RefusedError
from kernel_web.http1.parser import Parser, State

LIMIT = 2000
Reading: TypeAlias = list[tuple[str, bytes, bytes] | int | str]
"""Requests as (method, target, body), then the status of what is refused, or "more" if it may become something."""


def read(pieces: Iterable[bytes]) -> Reading:
    """Return what the core makes of bytes that come in pieces."""
    parser, reading = Parser(LIMIT), list[Any]()
    head, body = None, b""
    try:
        for piece in pieces:
            parser.feed(piece)
            while True:
                if head is None:
                    head, body = parser.head(), b""
                if head is None:
                    break
                got = parser.body()
                if got is not None:
                    body += got[0]
                if got is None or got[1]:
                    break
                reading.append((head.method, head.target, body))
                head = None
    except RefusedError as error:
        return [*reading, error.status]
    idle = head is None and not parser.ahead and parser.state is State.HEAD
    return reading if idle else [*reading, "more"]


def in_origin_form(target: bytes) -> bytes:
    """Return the target as a server that is no proxy takes it; h11 leaves whole URLs as they are."""
    if target.startswith(b"/") or target == b"*":
        return target
    try:
        url = urlsplit(target)
    except ValueError:  # no host; ours refuses it
        return target
    return (url.path or b"/") + (b"?" + url.query if b"?" in target else b"")


def read_by_h11(data: bytes) -> Reading:
    """Return what h11 makes of the same bytes."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=10 * LIMIT)
    connection.receive_data(data)
    reading: list[Any] = []
    request: Any = None
    body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                reading.append((request.method.decode(), in_origin_form(request.target), body))
                if request.method == b"CONNECT":  # another protocol follows, to h11
                    return reading
                request = None
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return reading
                connection.start_next_cycle()
            else:
                return [*reading, "more"] if request is not None or connection.trailing_data[0] else reading
    except h11.RemoteProtocolError as error:
        return [*reading, error.error_status_hint]


GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
FINE: Reading = [("GET", b"/", b"")]


def posted(body: bytes) -> Reading:
    return [("POST", b"/", body)]


TABLE: dict[bytes, Reading] = {}


def expect(reading: Reading, *requests: bytes) -> None:
    for request in requests:
        assert TABLE.setdefault(request, reading) == reading, request


# The request line (RFC 9112, 3).
expect(FINE, GET + b"\r\n", b"\r\n" + GET + b"\r\n", b"\r\n\r\n" + GET + b"\r\n", b"GET / HTTP/1.0\r\n\r\n")
expect(
    ["more"],
    b"G",
    b"GET",
    b"GET /",
    b"GET / HTTP/1.1",
    b"GET / HTTP/1.1\r",
    b"GET / HTTP/1.1\r\n",
    GET,
    GET + b"\r",
    b"\r",
)
for line in (
    b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b" GET / HTTP/1.1", b"GET / HTTP/1.1 ", b"GET\t/\tHTTP/1.1", b"GET /", b"GET",
    b"GET / HTTP/1.1 x", b"GET / HTTP", b"GET / HTTP/", b"GET / HTTP/1", b"GET / HTTP/1.", b"GET / HTTP/.1", b"GET / HTTP/11",
    b"GET / HTTP/1.10", b"GET / HTTP/10.1", b"GET / http/1.1", b"GET / Http/1.1", b"GET / HTTPS/1.1", b"GET / HTTP/1,1",
    b"GET / HTTP/1.1\x00", b"GET / HTTP/1.1\x0b", b"GET / XTTP/1.1", b"GET / HTTP /1.1", b"GET / HTTP/ 1.1", b"GET / HTTP/-1.1",
    b"GET / HTTP/+1.1", b"GET / HTTP/1.\xb2", b"GET HTTP/1.1", b"/ HTTP/1.1", b"HTTP/1.1 200 OK", b"GET /a b HTTP/1.1",
    b"GET /\t HTTP/1.1", b"GET /#x HTTP/1.1", b"GET /\xc3\xa9 HTTP/1.1", b"G@T / HTTP/1.1", b"G(T / HTTP/1.1", b"GE,T / HTTP/1.1",
    b"GET: / HTTP/1.1", b"\"GET\" / HTTP/1.1", b"G\xc3T / HTTP/1.1", b"GE[T / HTTP/1.1", b"GE{T / HTTP/1.1", b"GE=T / HTTP/1.1",
):  # fmt: skip
    expect([400], line + b"\r\nHost: a\r\n\r\n")
expect(
    [505], *(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % v for v in (b"0.9", b"1.2", b"1.9", b"2.0", b"3.0", b"0.0", b"9.9"))
)
expect([505], b"PRI * HTTP/2.0\r\n\r\n")
for code in (*range(0x21), 0x7F, 0x80, 0xFF):
    char = bytes([code])
    if char not in b"\r\n ":
        expect([400], b"GET /" + char + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    if char not in b"\n":
        expect([400], b"G" + char + b"ET / HTTP/1.1\r\nHost: a\r\n\r\n")
expect([("*&'", b"/", b"")], b"*&' / HTTP/1.1\r\nHost: a\r\n\r\n")
expect([("get", b"/", b"")], b"get / HTTP/1.1\r\nHost: a\r\n\r\n")
expect([("GET", b'/?a|b"c{d}\\e^f`', b"")], b'GET /?a|b"c{d}\\e^f` HTTP/1.1\r\nHost: a\r\n\r\n')

# The target (3.2).
expect([400], *(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target for target in (
    b"a", b"*", b"?x", b"a.example", b"a.example:80", b"http:/x", b"http://", b"http:///x", b"http://?x", b"ftp://a/x",
    b"http://u@a/", b"http://u:p@a/x", b"http://a\\b/", b"://a/", b"//", b"http://[::1/", b"http://a:b/", b"http://a:999999/",
    b"javascript:1", b"http://a<b/", b"file:///etc/passwd", b"http://[:1]:80/x", b"http://[::1%25]/",
) if target != b"//"))  # fmt: skip
expect([("GET", b"//", b"")], b"GET // HTTP/1.1\r\nHost: a\r\n\r\n")
expect([501], b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n")
expect([("CONNECT", b"/", b"")], b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n")
expect([("OPTIONS", b"*", b"")], b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
for url, origin in {
    b"http://b": b"/", b"http://b/": b"/", b"http://b/c?d": b"/c?d", b"http://b?x=1": b"/?x=1", b"http://b?x=/state": b"/?x=/state",
    b"HTTP://B/x": b"/x", b"https://b:443/x": b"/x", b"http://[::1]:80/x": b"/x", b"http://b:/x": b"/x",
}.items():  # fmt: skip
    expect([("GET", origin, b"")], b"GET " + url + b" HTTP/1.1\r\nHost: a\r\n\r\n")

# Host (3.2).
expect([400], b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nA: b\r\n\r\n")
expect(
    [400],
    GET + b"Host: a\r\n\r\n",
    GET + b"Host: b\r\n\r\n",
    GET + b"hOST: a\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
)
expect([400], *(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host for host in (
    b"a b", b"a,b", b"a/b", b"a?b", b"a#b", b"u@a", b"a:b", b"a:80:80", b"a:123456", b"[::1", b"::1", b"[x]", b"a\\b", b"<a>",
    b"a\xff", b"\"a\"", b"[::1]x", b"[]", b"http://a", b"[:1]", b"[.]", b"[1::2::3]", b"[12345::]", b"[::256.0.0.1]", b"[127.0.0.1]",
) if host not in {b"a,b", b"\"a\""}), b"GET / HTTP/1.1\r\nHost: \"a\"\r\n\r\n")  # fmt: skip
expect(FINE, *(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host for host in (
    b"", b"a.example", b"a:80", b"a:", b"127.0.0.1", b"[::1]", b"[::1]:80", b"[fe80::1%25eth0]", b"[::127.0.0.1]", b"a_b", b"%61", b"A-b.C", b"a,b",
)))  # fmt: skip

# Fields (5).
for code in (*range(0x20), 0x7F):
    char = bytes([code])
    if char not in b"\r\n\t":
        expect([400], GET + b"A: b" + char + b"c\r\n\r\n")
for code in (*range(0x21), *b'"(),/;<=>?@[\\]{}', 0x7F, 0x80, 0xFF):
    char = bytes([code])
    if char not in b"\r\n":
        expect([400], GET + b"A" + char + b": b\r\n\r\n")
expect(
    [400],
    GET + b"A : b\r\n\r\n".replace(b"A ", b"Aa "),
    GET + b": b\r\n\r\n",
    GET + b"A\r\n\r\n",
    GET + b" A: b\r\n\r\n",
    GET + b"\tA: b\r\n\r\n",
)
expect(
    [400],
    GET + b"A: b\r\n c\r\n\r\n",
    GET + b"A: b\r\n\tc\r\n\r\n",
    GET + b"A: b\r\n \r\n\r\n",
    b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
)
expect(
    [400],
    GET + b"A: b\n\r\n",
    GET + b"A: b\rC: d\r\n\r\n",
    GET + b"A: b\r\r\n\r\n",
    GET + b"\n",
    GET + b"A: b\n\n",
    GET + b"A\r: b\r\n\r\n",
)
expect(
    [400],
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\n\n",
    b"\nGET / HTTP/1.1\r\n",
    b"\n",
)
expect(
    FINE,
    GET + b"A:b\r\n\r\n",
    GET + b"A: \t b \t\r\n\r\n",
    GET + b"A:\r\n\r\n",
    GET + b"A: \xe9\xff\r\n\r\n",
    GET + b"A: a\tb\r\n\r\n",
    GET + b"!#$%&'*+-.^_`|~: b\r\n\r\n",
)
expect(
    [431],
    GET + b"A: " + b"b" * LIMIT + b"\r\n\r\n",
    GET + b"A: b\r\n" * 400 + b"\r\n",
    GET + b"A: " + b"b" * LIMIT,
    GET + b"A" * LIMIT,
)
expect([414], b"GET /" + b"a" * LIMIT + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"G" * (LIMIT + 2), b"G" * 2 * LIMIT)

# The length of a body (6).
for value in (
    b"+1", b"-1", b"1.0", b"0x1", b"1a", b"a", b"", b"1 1", b"1,1", b"1, 1", b"1;1", b"\"1\"", b"1_0", b"\xb2", b"1\t1", b"1e1", b"0b1", b"--1", b"NaN",
):  # fmt: skip
    expect([400], POST + b"Content-Length: " + value + b"\r\n\r\nx")
expect(
    [400],
    POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
)
expect(
    [413],
    POST + b"Content-Length: " + b"9" * 19 + b"\r\n\r\n",
    POST + b"Content-Length: 18446744073709551617\r\n\r\nx",
    POST + b"Content-Length: " + b"9" * 100 + b"\r\n\r\n",
)
expect(
    posted(b"x"),
    POST + b"Content-Length: 1\r\n\r\nx",
    POST + b"Content-Length: 01\r\n\r\nx",
    POST + b"Content-Length:  1 \r\n\r\nx",
    POST + b"Content-Length: " + b"0" * 30 + b"1\r\n\r\nx",
)
expect(
    posted(b""), POST + b"Content-Length: 0\r\n\r\n", POST + b"\r\n", CHUNKED + b"0\r\n\r\n", CHUNKED + b"000\r\n\r\n"
)
expect(
    ["more"],
    POST + b"Content-Length: 2\r\n\r\nx",
    CHUNKED,
    CHUNKED + b"1",
    CHUNKED + b"1\r",
    CHUNKED + b"1\r\n",
    CHUNKED + b"1\r\nx",
    CHUNKED + b"1\r\nx\r",
    CHUNKED + b"0\r\n",
    CHUNKED + b"0\r\n\r",
    CHUNKED + b"0\r\nA: b\r\n",
)
for codings in (
    b"chunked, chunked", b"chunked,gzip", b"gzip", b"identity", b"", b"chunked, identity", b"xchunked", b"chunked;x=y", b"\"chunked\"", b"chunke\xe4",
    b"chunked,", b",chunked,", b"chunked\x0b", b"CHUNKED, x", b"chunked chunked", b"gzip, deflate",
):  # fmt: skip
    expect([400], POST + b"Transfer-Encoding: " + codings + b"\r\n\r\n0\r\n\r\n")
expect(
    [501],
    *(
        POST + b"Transfer-Encoding: %b\r\n\r\n0\r\n\r\n" % codings
        for codings in (b"gzip, chunked", b"identity, chunked", b"x,chunked", b", chunked")
    ),
)
expect(
    [400],
    POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
)
expect([501], POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
expect(
    posted(b""),
    POST + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
    POST + b"TRANSFER-ENCODING:\tchunked\t\r\n\r\n0\r\n\r\n",
)
expect([400], b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
for both in (
    b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 0",
    b"Transfer-Encoding: identity\r\nContent-Length: 1",
):
    expect([400], POST + both + b"\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
for hidden in (
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    b" Transfer-Encoding: chunked",
    b"X: y\r\n Transfer-Encoding: chunked",
    b"Transfer-Encoding:\x0bchunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"\x00Transfer-Encoding: chunked",
):
    expect([400], POST + b"Content-Length: 4\r\n" + hidden + b"\r\n\r\n0\r\n\r\n")
expect([("POST", b"/", b"0\r\n\r")], POST + b"Content-Length: 4\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r")

# Chunks (7.1).
for chunks, body in {
    b"3\r\nabc\r\n0\r\n\r\n": b"abc", b"03\r\nabc\r\n0\r\n\r\n": b"abc", b"a\r\n0123456789\r\n0\r\n\r\n": b"0123456789",
    b"A\r\n0123456789\r\n0\r\n\r\n": b"0123456789", b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n": b"abc", b"3;x\r\nabc\r\n0\r\n\r\n": b"abc",
    b"3;x=y;z=\"q\"\r\nabc\r\n0;l\r\n\r\n": b"abc", b"3 ;x\r\nabc\r\n0\r\n\r\n": b"abc", b"3\r\nabc\r\n0\r\nA: b\r\nC: d\r\n\r\n": b"abc",
    b"2\r\n\r\n\r\n0\r\n\r\n": b"\r\n", b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n": b"abc",
}.items():  # fmt: skip
    expect(posted(body), CHUNKED + chunks)
expect([400], *(CHUNKED + chunks for chunks in (
    b"\r\n", b"x\r\n", b"0x3\r\nabc\r\n0\r\n\r\n", b"-3\r\nabc\r\n0\r\n\r\n", b"+3\r\nabc\r\n0\r\n\r\n", b" 3\r\nabc\r\n0\r\n\r\n", b"3 \r\nabc\r\n0\r\n\r\n",
    b"3\nabc\n0\n\n", b"3\r\nabc\n0\r\n\r\n", b"3\r\nabcXX2\r\nde\r\n0\r\n\r\n", b"3\r\nabcd\r\n0\r\n\r\n", b"4\r\nabc\r\n0\r\n\r\n", b"2\r\nabc\r\n0\r\n\r\n",
    b"3\r\nabc\r\r\n0\r\n\r\n", b"3\r\nabc0\r\n\r\n", b"3_0\r\nabc\r\n0\r\n\r\n", b"3,\r\nabc\r\n0\r\n\r\n", b"3;x\x00\r\nabc\r\n0\r\n\r\n", b"3;\n\r\nabc\r\n0\r\n\r\n",
    b"3;x\nabc\r\n0\r\n\r\n", b"f" * 17 + b"\r\n", b"1" * 1100, b"3;" + b"x" * 1100 + b"\r\nabc\r\n0\r\n\r\n", b";\r\n", b"3\x0b\r\nabc\r\n0\r\n\r\n", b"\xb3\r\nabc\r\n0\r\n\r\n",
    b"0\n\n", b"0\r\n\n", b"0\r\nA\r\n\r\n", b"0\r\nA : b\r\n\r\n", b"0\r\n A: b\r\n\r\n", b"0\r\nA: b\n\r\n", b"0\r\nA: b\x00\r\n\r\n", b"0\r\n\rx", b"0\r\n: b\r\n\r\n",
    b"3 x\r\nabc\r\n0\r\n\r\n", b"0;\x7f\r\n\r\n", b"3\r\n" + b"abc\r" + b"3\r\n",
)))  # fmt: skip
expect([431], CHUNKED + b"0\r\nA: " + b"b" * LIMIT + b"\r\n\r\n", CHUNKED + b"0\r\n" + b"A: b\r\n" * 400 + b"\r\n")
expect([400], CHUNKED + (b"1;" + b"x" * 1000 + b"\r\ny\r\n") * 30)

# What follows a request is the next one, and only then.
expect([*FINE, *FINE], GET + b"\r\n" + GET + b"\r\n", GET + b"\r\n\r\n" + GET + b"\r\n")
expect(
    [*posted(b"abc"), *FINE],
    POST + b"Content-Length: 3\r\n\r\nabc" + GET + b"\r\n",
    CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + GET + b"\r\n",
)
expect(
    [*posted(b"x"), 400],
    POST + b"Content-Length: 1\r\n\r\nxGET\r\n / HTTP/1.1\r\n\r\n",
    CHUNKED + b"1\r\nx\r\n0\r\n\r\nx\r\n",
)
expect([*FINE, 400], GET + b"\r\nx\r\n", GET + b"\r\n0\r\n\r\n", GET + b"\r\n\n")
expect([*FINE, "more"], GET + b"\r\nG", GET + b"\r\n" + GET)

# Expectations (RFC 9110, 10.1.1), and connections.
expect(
    [417],
    *(
        POST + b"Expect: %b\r\nContent-Length: 1\r\n\r\nx" % value
        for value in (b"x", b"200-ok", b"", b"100-continue, x")
    ),
)
expect([417], POST + b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx")
expect(
    posted(b"x"),
    POST + b"Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
    b"POST / HTTP/1.0\r\nExpect: x\r\nContent-Length: 1\r\n\r\nx",
)
expect(
    FINE,
    GET + b"Connection: close\r\n\r\n",
    GET + b"Connection: , ,x\r\n\r\n",
    GET + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
)


def test_the_table_is_as_long_as_it_is_meant_to_be() -> None:
    assert len(TABLE) >= 300


@pytest.mark.parametrize(("data", "reading"), TABLE.items(), ids=lambda value: repr(value)[:60])
def test_a_request_is_read_as_it_must_be(data: bytes, reading: Reading) -> None:
    assert read([data]) == reading
    assert read([data[at : at + 1] for at in range(len(data))]) == reading


# --- the core against itself, and against h11 ------------------------------------------------------------------------

PARTS = st.sampled_from([
    b"GET ", b"POST ", b"/ ", b"/x?y ", b"HTTP/1.1\r\n", b"HTTP/1.0\r\n", b"Host: a\r\n", b"Host: b\r\n", b"A: b\r\n", b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"\r\n", b"\n", b"\r", b" ",
    b"\t", b"\x00", b"\xff", b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\n", b";x=y", b"5;", b"x", b":", b"1", b"f" * 17, b"A: " + b"b" * 700 + b"\r\n",
    GET, POST, CHUNKED, GET + b"\r\n",
])  # fmt: skip
STREAMS = st.lists(PARTS, max_size=12).map(b"".join)


@given(data=STREAMS, cuts=st.lists(st.integers(0, 200), max_size=5))
@settings(max_examples=200)
def test_how_bytes_are_cut_does_not_change_the_verdict(data: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]

    assert read(pieces) == read([data])


@given(data=STREAMS)
@settings(max_examples=200)
def test_what_is_taken_h11_reads_in_the_same_way(data: bytes) -> None:
    ours, theirs = requests(read([data])), requests(read_by_h11(data))

    # h11 stops at what says `Connection: close`, and at what it refuses; what both read must be the same.
    assert ours[: len(theirs)] == theirs[: len(ours)]


def requests(reading: Reading) -> list[Any]:
    return [one for one in reading if isinstance(one, tuple)]


def heads(data: bytes) -> list[tuple[object, ...]]:
    """Return all that the heads of whole requests say."""
    parser, found = Parser(LIMIT), list[tuple[object, ...]]()
    parser.feed(data)
    while (head := parser.head()) is not None:
        parser.body()
        found.append(tuple(getattr(head, name) for name in Head.__slots__))
        head.headers.clear()  # as an application may: it is no other request's
    return found


SERVED = [data for data, reading in TABLE.items() if reading and isinstance(reading[-1], tuple)]


@pytest.mark.parametrize("data", SERVED, ids=lambda value: repr(value)[:60])
def test_a_head_that_is_known_says_what_it_said(data: bytes) -> None:
    once = heads(data)

    assert heads(data * 3) == once * 3


def first_of(data: bytes) -> bytes:
    """Return the first head, for another path."""
    return data[: data.find(b"\r\n\r\n") + 4].replace(b"/", b"/other", 1)


FOLLOWING = [(GET + b"\r\n", data) for data in TABLE]
FOLLOWING += [(first_of(data), data) for data in TABLE if requests(read([first_of(data)])) == read([first_of(data)])]


@pytest.mark.parametrize(("first", "data"), FOLLOWING, ids=lambda value: repr(value)[:60])
def test_what_came_before_does_not_change_the_verdict(first: bytes, data: bytes) -> None:
    expected = [*read([first]), *read([data])]

    assert read([first + data]) == expected
    assert read([first, data]) == expected


def test_a_head_that_is_known_has_the_limit_of_any_other() -> None:
    long = b"GET /" + b"a" * LIMIT + GET[5:] + b"\r\n"

    assert read([GET + b"\r\n" + long]) == [*FINE, *read([long])]
    assert read([long])[-1] == 414


def test_a_head_is_forgotten_and_what_has_come_of_the_next_is_not() -> None:
    parser = Parser(LIMIT)
    parser.feed(GET + b"\r\n" + GET[:9])
    parser.head()

    parser.forget()
    parser.feed(GET[9:] + b"\r\n")

    head = parser.head()
    assert head is not None
    assert (head.method, head.target, head.headers) == ("GET", b"/", [(b"host", b"a")])


@pytest.mark.slow
def test_a_mutated_request_is_never_read_in_two_ways() -> None:
    """A short run of benchmarks/fuzz_http1.py: any seed, the same order of inputs."""
    source = random.Random(16)
    for _ in range(2000):
        data = mutated(source)
        cut = source.randrange(len(data) + 1)
        assert read([data[:cut], data[cut:]]) == read([data]), data
        assert_independent(data)


def assert_independent(data: bytes) -> None:
    """Whatever is served is served again, and what follows what is served is read as if nothing had been before."""
    whole = read([data])
    if whole and isinstance(whole[-1], tuple):
        assert read([data + data]) == whole + whole, data
    one = data.find(b"\r\n\r\n") + 4
    first = read([data[:one]])
    if first and isinstance(first[-1], tuple):
        changed = data.replace(b"a", b"b", 1)
        assert read([data[:one] + changed]) == [*first, *read([changed])], data


ALL = list(TABLE)


def mutated(source: random.Random) -> bytes:
    """Return one or more requests, most of them nearly good: what is broken at its start tells little of the rest."""
    data = bytearray(source.choice(ALL if source.random() < 0.3 else SERVED))
    while source.random() < 0.3:
        data += source.choice(SERVED)
    for _ in range(source.choice([0, 1, 1, 2, 3])):
        at = source.randrange(len(data) + 1)
        action = source.randrange(3)
        if action == 0:
            data[at:at] = bytes([source.choice(b"\r\n \t:;,0123456789abcdefAGTH\x00\xff/")])
        elif action == 1:
            del data[at : at + source.randrange(1, 4)]
        else:
            data[at : at + 1] = source.choice(ALL)[:20]
    return bytes(data)
