"""HTTP/2 by its frames: what one stream or one client does, and that it costs nobody else anything."""

from __future__ import annotations

import socket
from typing import Any

import h2.errors
import pytest
import trio
import trio.testing
from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CODES = h2.errors.ErrorCodes


class Client:
    """Speaks frames, so that it can say what no library would."""

    def __init__(self, stream: trio.SocketStream, **settings: int) -> None:
        self.stream = stream
        self.encoder, self.decoder = Encoder(), Decoder()
        self.settings = {getattr(SettingsFrame, name.upper()): value for name, value in settings.items()}
        self.received = b""

    async def start(self) -> None:
        await self.stream.send_all(PREFACE + SettingsFrame(0, settings=self.settings).serialize())

    async def send(self, *frames: Frame) -> None:
        await self.stream.send_all(b"".join(frame.serialize() for frame in frames))

    def request(self, stream_id: int, *, end: bool = True, **pseudo: bytes) -> HeadersFrame:
        wanted = {"method": b"GET", "path": b"/", "scheme": b"http", "authority": b"a", **pseudo}
        fields = [(b":" + name.encode(), value) for name, value in wanted.items()]
        return self.headers(stream_id, fields, end=end)

    def headers(self, stream_id: int, fields: list[tuple[bytes, bytes]], *, end: bool = True) -> HeadersFrame:
        frame = HeadersFrame(stream_id, data=self.encoder.encode(fields))
        frame.flags |= {"END_HEADERS", "END_STREAM"} if end else {"END_HEADERS"}
        return frame

    async def next(self, *kinds: type[Frame]) -> Any:
        """Return the next frame of one of some kinds; None at the end."""
        with trio.fail_after(60):
            while True:
                while len(self.received) >= 9:
                    frame, length = Frame.parse_frame_header(memoryview(self.received)[:9])
                    if len(self.received) < 9 + length:
                        break
                    frame.parse_body(memoryview(self.received)[9 : 9 + length])
                    self.received = self.received[9 + length :]
                    if isinstance(frame, HeadersFrame):
                        frame.fields = dict(self.decoder.decode(frame.data, raw=True))  # type: ignore[attr-defined]
                    if isinstance(frame, kinds):
                        return frame
                try:
                    data = await self.stream.receive_some()
                except trio.BrokenResourceError:
                    return None
                if not data:
                    return None
                self.received += data


async def open_client(service: Any, **settings: int) -> Client:
    client = Client(await service.connect(), **settings)
    await client.start()
    return client


async def small(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


async def waits(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def test_a_slow_reader_gets_all_as_long_as_it_takes_something(
    web: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async def large(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 2**20})

    async with web(large, h2c=True, write_timeout=5) as service:
        client = await open_client(service)
        await client.send(client.request(1))
        size, frames, ended = 0, 0, False
        while not ended:
            frame = await client.next(DataFrame, RstStreamFrame)
            size += len(frame.data)
            ended = "END_STREAM" in frame.flags
            frames += 1
            if frames % 3 == 0:
                await trio.sleep(2)
            await client.send(WindowUpdateFrame(0, len(frame.data)), WindowUpdateFrame(1, len(frame.data)))
        took = trio.current_time()
        await client.stream.aclose()

    assert size == 2**20
    assert took > 20


async def test_a_thousand_cancelled_requests_leave_nothing_behind(
    web: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async with web({"/": waits, "/small": small}, h2c=True) as service:
        client = await open_client(service)
        for number in range(1, 2401, 2):
            await client.send(client.request(number), RstStreamFrame(number, error_code=8))
            await trio.sleep(0.02)
        await client.send(client.request(2401, path=b"/small"))
        answer = await client.next(DataFrame, GoAwayFrame)
        (guest,) = service.dispatcher._server.connections
        speaker = guest._speaker
        left = len(speaker._running), len(speaker._lanes), len(speaker.protocol.streams)
        await client.stream.aclose()

    assert isinstance(answer, DataFrame)
    assert left[:2] <= (1, 1)
    assert left[2] < 10


async def test_a_client_that_says_goodbye_gets_what_it_asked_for(web: Any) -> None:
    release = trio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await small(scope, receive, send)

    async with web(slow, h2c=True) as service:
        client = await open_client(service)
        await client.send(client.request(1))
        await service.intake.wait(lambda intake: intake.active)
        await client.send(GoAwayFrame(0, last_stream_id=0, error_code=0))
        await trio.testing.wait_all_tasks_blocked()
        release.set()
        answer = await client.next(DataFrame)
        goodbye = await client.next(GoAwayFrame)
        end = await client.next(Frame)
        await client.stream.aclose()

    assert bytes(answer.data) == b"/"
    assert goodbye.error_code == CODES.NO_ERROR
    assert end is None


@pytest.mark.parametrize("count", [2, 3, 40])
async def test_answers_that_are_ready_at_once_all_leave_before_the_goodbye(web: Any, count: int) -> None:
    ids = range(1, 2 * count, 2)
    async with web(small, h2c=True) as service:
        client = await open_client(service)
        goodbye = GoAwayFrame(0, error_code=CODES.NO_ERROR)
        await client.send(*(client.request(number, path=b"/%d" % number) for number in ids), goodbye)
        answers = [await client.next(DataFrame, GoAwayFrame) for _ in ids]
        last = await client.next(GoAwayFrame)
        await client.stream.aclose()

    assert sorted((frame.stream_id, frame.data) for frame in answers) == [(at, b"/%d" % at) for at in ids]
    assert last.last_stream_id == ids[-1]


async def test_an_answer_leaves_whatever_becomes_of_the_others(web: Any) -> None:
    async def one_of_two(scope: Any, receive: Any, send: Any) -> None:
        await (waits if scope["path"] == "/waits" else small)(scope, receive, send)

    async with web(one_of_two, h2c=True) as service:
        client = await open_client(service)
        await client.send(client.request(1, path=b"/waits"), client.request(3), RstStreamFrame(1, CODES.CANCEL))
        answer = await client.next(DataFrame)
        await client.send(client.request(5, path=b"/waits"), client.request(7))
        other = await client.next(DataFrame)
        await client.stream.aclose()

    assert [(frame.stream_id, frame.data) for frame in (answer, other)] == [(3, b"/"), (7, b"/")]


async def test_an_idle_connection_ends_with_a_goodbye(web: Any, autojump_clock: trio.testing.MockClock) -> None:
    async with web(small, h2c=True, keep_alive_timeout=5) as service:
        client = await open_client(service)
        await client.send(client.request(1))
        await client.next(DataFrame)
        goodbye = await client.next(GoAwayFrame)
        end = await client.next(Frame)
        took = trio.current_time()
        await client.stream.aclose()

    assert (goodbye.error_code, goodbye.last_stream_id) == (CODES.NO_ERROR, 1)
    assert end is None
    assert 5 <= took < 6


@pytest.mark.parametrize(
    "pseudo",
    [
        {"method": b"G\xffT"}, {"method": b"G T"}, {"path": b"/\xff"}, {"path": b"x"}, {"path": b"/ x"}, {"path": b"/#x"},
        {"authority": b"a b"}, {"authority": b"u@a"}, {"authority": b"a/b"}, {"authority": b"[:1]"}, {"authority": b"a:b"},
        {"path": b"*"}, {"method": b"CONNECT", "protocol": b"ftp"},
    ],
    ids=str,
)  # fmt: skip
async def test_a_request_that_is_none_ends_its_stream_alone(web: Any, pseudo: dict[str, bytes]) -> None:
    async with web(small, h2c=True) as service:
        client = await open_client(service)
        await client.send(client.request(1, **pseudo))
        reset = await client.next(RstStreamFrame, GoAwayFrame)
        await client.send(client.request(3))
        answer = await client.next(DataFrame, GoAwayFrame)
        await client.stream.aclose()

    assert (type(reset), reset.error_code) == (RstStreamFrame, CODES.PROTOCOL_ERROR)
    assert bytes(answer.data) == b"/"
    assert service.logs == []


async def test_a_line_end_in_a_header_is_smuggled_to_nobody(web: Any) -> None:
    async with web(small, h2c=True) as service:
        client = await open_client(service)
        fields = [(b":method", b"GET"), (b":path", b"/"), (b":scheme", b"http"), (b":authority", b"a")]
        await client.send(client.headers(1, [*fields, (b"x", b"a\r\nx-injected: 1")]))
        ended = await client.next(RstStreamFrame, GoAwayFrame)
        await client.stream.aclose()
        entered = list(service.intake.entered)

    assert ended is not None
    assert entered == []


async def test_an_answer_to_head_says_how_long_that_to_get_is(web: Any) -> None:
    async with web(small, h2c=True) as service:
        client = await open_client(service)
        await client.send(client.request(1, method=b"HEAD", path=b"/four"))
        head = await client.next(HeadersFrame)
        await client.stream.aclose()

    assert head.fields[b"content-length"] == b"5"
    assert "END_STREAM" in head.flags


async def test_a_stream_that_is_reset_while_it_waits_takes_no_slot(web: Any) -> None:
    release = trio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await small(scope, receive, send)

    async with web(slow, h2c=True, concurrency=1) as service:
        client = await open_client(service)
        await client.send(client.request(1))
        await service.intake.wait(lambda intake: intake.active)
        await client.send(client.request(3, path=b"/left"))
        with trio.fail_after(3):
            while not service.dispatcher._server.shared.waiting:  # noqa: ASYNC110  nothing tells
                await trio.sleep(0.005)
        await client.send(RstStreamFrame(3, error_code=8))
        await trio.testing.wait_all_tasks_blocked()
        release.set()
        await client.next(DataFrame)
        await client.stream.aclose()
        await service.wait_connections(0)
        entered = [label for label, _ in service.intake.entered]

    assert entered == ["GET /"]


async def test_cookies_come_as_one_header_and_the_authority_as_host(web: Any) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(scope["headers"])
        await small(scope, receive, send)

    async with web(app, h2c=True) as service:
        client = await open_client(service)
        fields = [(b":method", b"GET"), (b":path", b"/"), (b":scheme", b"http"), (b":authority", b"a")]
        await client.send(client.headers(1, [*fields, (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")]))
        await client.next(DataFrame)
        await client.stream.aclose()

    assert seen == [(b"host", b"a"), (b"x", b"y"), (b"cookie", b"a=1; b=2")]


@pytest.mark.parametrize("ending", ["close", "reset", "early", "vanish"])
async def test_a_websocket_over_a_stream_ends_with_it(web: Any, ending: str) -> None:
    ends: list[int] = []

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        ends.append(message["code"])

    async with web(echo, h2c=True, concurrency=1) as service:
        client = await open_client(service)
        pseudo = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":path", b"/"), (b":scheme", b"http")]
        fields = [*pseudo, (b":authority", b"a"), (b"sec-websocket-version", b"13")]
        await client.send(client.headers(1, fields, end=False), DataFrame(1, data=b"\x81\x81\x00\x00\x00\x00x"))
        opened = await client.next(HeadersFrame)
        echoed = await client.next(DataFrame)
        if ending == "close":
            await client.send(DataFrame(1, data=b"\x88\x82\x00\x00\x00\x00\x03\xe8"))
            await client.next(DataFrame)
        elif ending == "reset":
            await client.send(RstStreamFrame(1, error_code=8))
        elif ending == "early":
            await client.send(DataFrame(1, data=b"\x01"))
        await client.stream.aclose()
        await service.wait_connections(0)

    assert opened.fields[b":status"] == b"200"
    assert bytes(echoed.data) == b"\x81\x01x"
    assert ends == [1000 if ending == "close" else 1002 if ending == "early" and ends == [1002] else 1006]
    assert service.logs == []


async def test_trailers_and_hints_are_sent(web: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]})
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"x"})
        await send({"type": "http.response.trailers", "headers": [(b"sum", b"1")]})

    async with web(app, h2c=True) as service:
        client = await open_client(service)
        await client.send(client.request(1))
        hints, head = await client.next(HeadersFrame), await client.next(HeadersFrame)
        trailers = await client.next(HeadersFrame)
        await client.stream.aclose()

    assert (hints.fields[b":status"], hints.fields[b"link"]) == (b"103", b"</a>; rel=preload")
    assert head.fields[b":status"] == b"200"
    assert trailers.fields == {b"sum": b"1"}
    assert "END_STREAM" in trailers.flags


@pytest.mark.parametrize("ending", ["stop", "idle"])
async def test_what_has_been_said_reaches_a_client_that_reads_late(
    web: Any, autojump_clock: trio.testing.MockClock, ending: str
) -> None:
    """More than the system takes at once: the rest leaves before the connection is shut."""
    async with web({"/x": small}, h2c=True, stop_timeout=40, keep_alive_timeout=3, header_timeout=3) as service:
        client = await open_client(service)
        await trio.testing.wait_all_tasks_blocked(0.01)
        (guest,) = service.dispatcher._server.connections
        for sock, option in ((client.stream.socket, socket.SO_RCVBUF), (guest.channel._socket, socket.SO_SNDBUF)):
            sock.setsockopt(socket.SOL_SOCKET, option, 2048)
        asked = 0
        while not guest.channel.has_unsent:
            await client.send(*(client.request(2 * (asked + at) + 1) for at in range(50)))
            await trio.testing.wait_all_tasks_blocked(0.01)
            asked += 50
        if ending == "stop":
            await service.stop_accepting()
        else:
            await trio.sleep(4)
        answers, last = 0, None
        while (frame := await client.next(HeadersFrame, GoAwayFrame)) is not None:
            answers, last = answers + isinstance(frame, HeadersFrame), frame
        await service.wait_connections(0)
        await client.stream.aclose()

    assert isinstance(last, GoAwayFrame)
    assert answers == asked
    assert last.last_stream_id == 2 * answers - 1
    assert service.logs == []


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\0\0\1\4\0\0\0\0\0x", 6),
        (SETTINGS + b"\0\0\4\x08\0\0\0\0\0\0\0\0\0", 1),
        (SETTINGS + b"\0\0\1\0\0\0\0\0\1x", 1),
    ],
    ids=["size", "window", "data without a request"],
)
async def test_a_client_that_breaks_the_rules_is_told_once_which(web: Any, frames: bytes, code: int) -> None:
    async with web(small, h2c=True) as service:
        said = await service.ask(PREFACE + frames)
    goaways = [said[at + 8 : at + 16] for at in range(len(said)) if said[at : at + 5] == b"\0\0\x08\7\0"]

    assert len(goaways) == 1
    assert int.from_bytes(said[-4:], "big") == code
    assert service.logs == []


ODD = [(b"X-Odd", b" 1 "), (b"Connection", b"close"), (b"te", b"gzip"), (b"Keep-Alive", b"1"), (b"upgrade", b"h2c")]


@pytest.mark.parametrize("place", ["head", "trailers", "accept", "denial"])
async def test_what_an_application_says_of_a_connection_is_not_said(web: Any, place: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket" and place == "accept":
            await send({"type": "websocket.accept", "headers": ODD})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.http.response.start", "status": 403, "headers": ODD})
            await send({"type": "websocket.http.response.body", "body": b"no"})
        else:
            headers = ODD if place == "head" else []
            await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
            await send({"type": "http.response.body", "body": b"x"})
            await send({"type": "http.response.trailers", "headers": ODD if place == "trailers" else []})

    is_websocket = place in {"accept", "denial"}
    async with web(app, h2c=True) as service:
        client = await open_client(service)
        await client.send(client.headers(1, websocket_fields(), end=False) if is_websocket else client.request(1))
        head = await client.next(HeadersFrame, RstStreamFrame)
        said = await client.next(HeadersFrame, RstStreamFrame) if place == "trailers" else head
        await client.stream.aclose()
        await service.wait_connections(0)

    assert isinstance(said, HeadersFrame)
    own = {b":status", b"date", b"content-length"}
    assert {name: value for name, value in said.fields.items() if name not in own} == {b"x-odd": b"1"}  # type: ignore[attr-defined]


def websocket_fields() -> list[tuple[bytes, bytes]]:
    pseudo = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":path", b"/"), (b":scheme", b"http")]
    return [*pseudo, (b":authority", b"a"), (b"sec-websocket-version", b"13")]
