"""Answers over HTTP/2 that are complete before the client has sent everything."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, RstStreamFrame, WindowUpdateFrame

from .test_http2 import CODES, open_client

CURL = shutil.which("curl")


async def early(scope: Any, receive: Any, send: Any) -> None:
    """Answer without a look at the body."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"early"})


async def test_a_client_learns_how_much_it_may_send_before_its_answer_ends(web: Any) -> None:
    async with web(early, h2c=True, body_buffer_bytes=1) as service:
        client = await open_client(service)
        await client.send(client.request(1, method=b"POST", end=False), DataFrame(1, b"x" * 100))
        frames: list[Any] = []
        while not frames or "END_STREAM" not in frames[-1].flags:
            frames.append(await client.next(DataFrame, WindowUpdateFrame, RstStreamFrame))
        await client.stream.aclose()

    of_stream = [frame for frame in frames if frame.stream_id == 1]
    assert [type(frame) for frame in of_stream] == [WindowUpdateFrame, DataFrame]
    assert of_stream[0].window_increment >= 2**29


async def test_a_client_may_send_the_rest_and_ask_again(web: Any) -> None:
    async with web(early, h2c=True, body_buffer_bytes=1) as service:
        client = await open_client(service)
        await client.send(client.request(1, method=b"POST", end=False), DataFrame(1, b"x" * 100))
        await client.next(DataFrame)
        for _ in range(20):
            await client.send(DataFrame(1, b"x" * 10_000))
        await client.send(DataFrame(1, b"x", flags=["END_STREAM"]), client.request(3))
        frame = await client.next(DataFrame, RstStreamFrame, GoAwayFrame)
        await client.stream.aclose()

    assert (type(frame), frame.stream_id, frame.data) == (DataFrame, 3, b"early")


@pytest.mark.parametrize("path", [b"/a", b"/b"], ids=["answered early", "not found"])
async def test_a_connection_that_has_had_the_rest_is_idle(
    web: Any, autojump_clock: trio.testing.MockClock, path: bytes
) -> None:
    async with web({"/a": early}, h2c=True, body_buffer_bytes=1, keep_alive_timeout=7) as service:
        client = await open_client(service)
        await client.send(client.request(1, method=b"POST", path=path, end=False), DataFrame(1, b"x" * 100))
        await client.next(DataFrame)
        for _ in range(20):
            await trio.sleep(0.5)
            await client.send(DataFrame(1, b"x"))
        await client.send(DataFrame(1, b"x", flags=["END_STREAM"]))
        began = trio.current_time()
        goodbye = await client.next(GoAwayFrame, RstStreamFrame)
        took = trio.current_time() - began
        await client.stream.aclose()

    assert (type(goodbye), goodbye.error_code) == (GoAwayFrame, CODES.NO_ERROR)
    assert 6.5 < took < 8.5
    assert service.logs == []


@pytest.mark.parametrize(
    ("path", "length", "status"), [(b"/a", b"5", b"200"), (b"/a", b"3000000", b"413"), (b"/b", b"5", b"404")]
)
async def test_a_stream_whose_client_says_nothing_more_is_reset(
    web: Any, autojump_clock: trio.testing.MockClock, path: bytes, length: bytes, status: bytes
) -> None:
    async with web({"/a": early}, h2c=True, body_buffer_bytes=1) as service:
        client = await open_client(service)
        fields = [(b":method", b"POST"), (b":path", path), (b":scheme", b"http"), (b":authority", b"a")]
        fields += [(b"content-length", length)]
        await client.send(client.headers(1, fields, end=False), DataFrame(1, b"x"))
        head = await client.next(HeadersFrame)
        began = trio.current_time()
        reset = await client.next(RstStreamFrame, GoAwayFrame)
        took = trio.current_time() - began
        await client.stream.aclose()

    assert head.fields[b":status"] == status
    assert (type(reset), reset.error_code) == (RstStreamFrame, CODES.NO_ERROR)
    assert 0.9 < took < 2


async def test_a_client_that_goes_on_for_ever_is_ended(web: Any, autojump_clock: trio.testing.MockClock) -> None:
    async with web(early, h2c=True, body_buffer_bytes=1, body_timeout=5) as service:
        client = await open_client(service)
        await client.send(client.request(1, method=b"POST", end=False), DataFrame(1, b"x" * 100))
        await client.next(DataFrame)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _go_on() -> None:
                while True:
                    await trio.sleep(0.5)
                    await client.send(DataFrame(1, b"x"))

            reset = await client.next(RstStreamFrame, GoAwayFrame)
            nursery.cancel_scope.cancel()
        took = trio.current_time() - began
        await client.stream.aclose()

    assert (type(reset), reset.error_code) == (RstStreamFrame, CODES.NO_ERROR)
    assert 5 <= took < 6


async def test_a_stop_waits_a_moment_for_who_still_sends(web: Any, autojump_clock: trio.testing.MockClock) -> None:
    async with web(early, h2c=True, body_buffer_bytes=1, stop_timeout=20) as service:
        client = await open_client(service)
        await client.send(client.request(1, method=b"POST", end=False), DataFrame(1, b"x" * 100))
        await client.next(DataFrame)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _go_on() -> None:
                for _ in range(100):
                    await trio.sleep(0.5)
                    await client.send(DataFrame(1, b"x"))

            await service.stop_accepting()
            took = await service.leave()
            nursery.cancel_scope.cancel()
        await client.stream.aclose()

    assert took < 4


@pytest.mark.slow
@pytest.mark.skipif(CURL is None, reason="needs curl")
@pytest.mark.parametrize("size", [1_000, 65_536, 100_000, 5_000_000])
@pytest.mark.parametrize("how", ["--data-binary=@", "--upload-file="])
@pytest.mark.parametrize("largest", [2**20, 2**30])
async def test_curl_ends_with_its_answer(web: Any, tmp_path: Path, size: int, how: str, largest: int) -> None:
    (tmp_path / "body").write_bytes(bytes(size))
    option, _, prefix = how.partition("=")
    command = [CURL, "--silent", "--show-error", "--http2-prior-knowledge", "--write-out", " %{http_code}"]
    async with web(early, h2c=True, max_body_bytes=largest) as service:
        with trio.fail_after(20):
            done = await trio.run_process(
                [*command, option, f"{prefix}{tmp_path}/body", service.url], capture_stdout=True, capture_stderr=True
            )

    wanted = b"early 200" if size <= largest else b"413 Request Entity Too Large\n 413"
    assert (done.stdout, done.stderr) == (wanted, b"")
