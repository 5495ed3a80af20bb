"""HTTP/2 clients that send much and ask for nothing: their connection ends, and others are served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h2.errors
import httpx
import pytest
import trio
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
HEADERS = bytes([0x82, 0x84, 0x86, 0x41, 0x01]) + b"a"  # GET / http, authority "a", in HPACK's static table
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
CALM = h2.errors.ErrorCodes.ENHANCE_YOUR_CALM


async def waits(scope: Any, receive: Any, send: Any) -> None:
    if scope["http_version"] == "2":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def frames_of(data: bytes) -> list[Frame]:
    """Parse what a server sent; a frame that is cut off at the end is left out."""
    frames, view = [], memoryview(data)
    while len(view) >= 9:
        frame, length = Frame.parse_frame_header(view[:9])
        if len(view) < 9 + length:
            break
        frame.parse_body(view[9 : 9 + length])
        frames.append(frame)
        view = view[9 + length :]
    return frames


async def flooded(service: Any, opening: bytes, flood: bytes, *, reading: bool = True) -> tuple[list[Frame], int]:
    """Send until the server closes; return what it said and how many floods it took in."""
    received, taken = bytearray(), 0
    async with await service.connect() as stream, trio.open_nursery() as nursery:

        async def read() -> None:
            try:
                async for chunk in stream:
                    received.extend(chunk)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            nursery.cancel_scope.cancel()

        if reading:
            nursery.start_soon(read)
        await stream.send_all(opening)
        with trio.fail_after(5):
            try:
                while True:
                    await stream.send_all(flood)
                    taken += 1
                    await trio.lowlevel.checkpoint()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            if reading:
                await trio.sleep_forever()
    return frames_of(bytes(received)), taken


def request(stream_id: int) -> bytes:
    frame = HeadersFrame(stream_id, data=HEADERS)
    frame.flags |= {"END_HEADERS", "END_STREAM"}
    return bytes(frame.serialize())


def posted(stream_id: int) -> bytes:
    frame = HeadersFrame(stream_id, data=b"\x83" + HEADERS[1:])
    frame.flags.add("END_HEADERS")
    return bytes(frame.serialize())


def pings() -> bytes:
    return bytes(PingFrame(0, opaque_data=b"12345678").serialize())


def settings() -> bytes:
    return bytes(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65535}).serialize())


def updates() -> bytes:
    return bytes(WindowUpdateFrame(0, window_increment=1).serialize())


def priorities() -> bytes:
    return bytes(PriorityFrame(1, depends_on=0, stream_weight=10).serialize())


def empty_bodies() -> bytes:
    return bytes(DataFrame(1).serialize())


@pytest.mark.parametrize("flood", [pings, settings, updates, priorities, empty_bodies])
async def test_a_flood_of_frames_that_bring_nothing_ends_the_connection(web: Any, flood: Callable[[], bytes]) -> None:
    opening = PREFACE + (posted(1) if flood is empty_bodies else request(1))
    async with web(waits, h2c=True, stop_timeout=0.2) as service:
        frames, _ = await flooded(service, opening, flood() * 200)
        await service.wait_connections(0)
        other = await service.ask(CLOSE)

    goodbyes = [frame for frame in frames if isinstance(frame, GoAwayFrame)]
    assert [frame.error_code for frame in goodbyes] == [CALM]
    assert other.startswith(b"HTTP/1.1 200")
    assert service.logs == []


async def test_a_flood_from_a_client_that_does_not_read_ends_too(web: Any) -> None:
    async with web(waits, h2c=True, write_timeout=0.2, stop_timeout=0.2) as service:
        _, taken = await flooded(service, PREFACE + request(1), pings() * 2000, reading=False)
        await service.wait_connections(0)

    assert taken < 1000
    assert service.logs == []


async def test_a_tree_of_priorities_for_streams_that_never_come_is_bounded(web: Any) -> None:
    tree = b"".join(
        PriorityFrame(number, depends_on=number + 100_000, stream_weight=1).serialize() for number in range(3, 1800, 2)
    )
    async with web(waits, h2c=True, stop_timeout=0.2) as service:
        frames, _ = await flooded(service, PREFACE + request(1), tree)
        await service.wait_connections(0)

    assert CALM in {frame.error_code for frame in frames if isinstance(frame, GoAwayFrame)}
    assert service.logs == []


@pytest.mark.parametrize("size", [0, 16384])
async def test_a_flood_of_continuations_ends_the_connection_before_the_headers_do(web: Any, size: int) -> None:
    opening = HeadersFrame(1, data=HEADERS).serialize()
    block = b"\x00" * size  # literals without an end: what they hold is never looked at
    async with web(waits, h2c=True, stop_timeout=0.2) as service:
        frames, taken = await flooded(service, PREFACE + opening, ContinuationFrame(1, data=block).serialize())
        await service.wait_connections(0)
        entered = service.intake.entered

    assert any(isinstance(frame, GoAwayFrame) and frame.error_code for frame in frames)
    assert taken < 1000
    assert entered == []
    assert service.logs == []


async def test_headers_that_continue_too_slowly_are_closed(web: Any) -> None:
    async with web(waits, h2c=True, header_timeout=0.1) as service, await service.connect() as stream:
        await stream.send_all(PREFACE + HeadersFrame(1, data=HEADERS).serialize())
        await service.wait_connections(1)
        await service.wait_connections(0)

    assert service.intake.entered == []


async def test_a_priority_below_a_stream_that_never_comes_costs_nothing(web: Any) -> None:
    async def small(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    strange = PriorityFrame(3, depends_on=101, stream_weight=1).serialize()
    async with web(small, h2c=True, stop_timeout=0.2) as service, await service.connect() as stream:
        await stream.send_all(PREFACE + strange + request(1))
        received = b""
        with trio.fail_after(4):
            while not any(
                isinstance(frame, DataFrame) and "END_STREAM" in frame.flags for frame in frames_of(received)
            ):
                chunk = await stream.receive_some()
                assert chunk, service.logs
                received += chunk
        await stream.aclose()
        await service.wait_connections(0)

    assert service.logs == []


async def test_a_client_that_pings_now_and_then_is_kept(web: Any) -> None:
    async with web(waits, h2c=True, stop_timeout=0.2) as service:
        async with await service.connect() as stream:
            await stream.send_all(PREFACE + request(1) + pings() * 900)
            received = b""
            with trio.fail_after(4):
                while sum(isinstance(frame, PingFrame) for frame in frames_of(received)) < 900:
                    received += await stream.receive_some()
        frames = frames_of(received)

    assert not [frame for frame in frames if isinstance(frame, GoAwayFrame)]


async def test_a_long_answer_allows_the_updates_that_it_takes(web: Any) -> None:
    async def long(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3000):
            await send({"type": "http.response.body", "body": b"x" * 512, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with (
        web(long, h2c=True) as service,
        httpx.AsyncClient(base_url=service.url, http1=False, http2=True) as client,
    ):
        with trio.fail_after(20):
            response = await client.get("/")

    assert len(response.content) == 3000 * 512


async def test_a_flood_of_resets_ends_the_connection(web: Any) -> None:
    resets = b"".join(
        request(number) + RstStreamFrame(number, error_code=8).serialize() for number in range(1, 200_001, 2)
    )
    async with web(waits, h2c=True, concurrency=5, stop_timeout=0.2) as service:
        _, taken = await flooded(service, PREFACE, resets)
        await service.wait_connections(0)
        other = await service.ask(CLOSE)

    assert taken <= 1
    assert len(service.intake.entered) < 1000
    assert other.startswith(b"HTTP/1.1 200")
    assert service.logs == []


@pytest.mark.parametrize(("count", "is_cut"), [(150, False), (400, True)])
async def test_so_many_requests_may_be_cancelled_at_once(web: Any, count: int, is_cut: bool) -> None:
    async def small(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    ids = range(1, 2 * count, 2)
    cancelled = b"".join(request(number) + RstStreamFrame(number, error_code=8).serialize() for number in ids)
    async with (
        web(small, h2c=True, stop_timeout=0.2, keep_alive_timeout=0.5) as service,
        await service.connect() as one,
    ):
        await one.send_all(PREFACE + cancelled + request(2 * count + 1))
        frames = frames_of(b"".join([chunk async for chunk in one]))

    answered = {frame.stream_id for frame in frames if isinstance(frame, DataFrame) and frame.data}
    codes = {frame.error_code for frame in frames if isinstance(frame, GoAwayFrame)}
    assert (2 * count + 1 in answered, CALM in codes) == (not is_cut, is_cut)
    assert service.logs == []
