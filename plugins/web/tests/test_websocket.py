"""Websockets over HTTP/1.1."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio
import trio.lowlevel
from kernel_web.websocket.frames import Frames
from trio_websocket import ConnectionClosed, open_websocket_url
from wsproto.frame_protocol import FrameProtocol, Opcode

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Echo:
    """Sends back what it receives, and remembers how each websocket ended."""

    def __init__(self) -> None:
        self.ends: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            kept = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
            await send({"type": "websocket.send", **kept})
        self.ends.append(message["code"])


def url(service: Any) -> str:
    return service.url.replace("http", "ws") + "/"


@pytest.mark.parametrize("message", ["text", b"bytes", "x" * 100_000], ids=["text", "bytes", "long"])
async def test_messages_come_back(web: Any, message: Any) -> None:
    app = Echo()
    async with web(app) as service:
        async with open_websocket_url(url(service)) as socket:
            await socket.send_message(message)
            received = await socket.get_message()
        await service.intake.wait(lambda intake: not intake.active)

    assert received == message
    assert app.ends == [1000]
    assert service.intake.entered == [("websocket /", "app0")]


async def test_an_idle_websocket_is_closed_at_stop_and_both_sides_are_told(web: Any) -> None:
    app = Echo()
    async with web(app) as service, open_websocket_url(url(service)) as socket:
        await socket.send_message("here")
        await socket.get_message()
        await service.stop_accepting()
        with trio.fail_after(4), pytest.raises(ConnectionClosed):
            await socket.get_message()
        reason = socket.closed
        await socket._stream.aclose()  # trio-websocket leaves it open when the server closes
        took = await service.stop(drain=10)

    assert reason is not None
    assert reason.code == 1001
    assert app.ends == [1001]
    assert took < 5


async def test_an_application_that_asks_for_it_is_told_of_a_stop_and_closes_by_itself(web: Any) -> None:
    async def stays(scope: Any, receive: Any, send: Any) -> None:
        assert "websocket.stop" in scope["extensions"]
        await send({"type": "websocket.accept", "stop": True})
        told = [(await receive())["type"] for _ in range(3)]
        await send({"type": "websocket.send", "text": " ".join(told)})
        await send({"type": "websocket.close", "code": 1001})

    async with web(stays) as service, open_websocket_url(url(service)) as socket:
        await service.intake.wait(lambda intake: bool(intake.active))
        await service.stop_accepting()
        await socket.send_message("once more")
        with trio.fail_after(4):
            said = await socket.get_message()
            with pytest.raises(ConnectionClosed):
                await socket.get_message()
        await socket._stream.aclose()  # trio-websocket leaves it open when the server closes
        took = await service.stop(drain=10)

    assert said == "websocket.connect websocket.stop websocket.receive"
    assert took < 5


async def test_a_websocket_that_is_accepted_during_a_stop_is_closed(web: Any) -> None:
    may = trio.Event()

    async def hesitates(scope: Any, receive: Any, send: Any) -> None:
        await may.wait()
        await send({"type": "websocket.accept"})
        await trio.lowlevel.checkpoint()
        assert (await receive())["type"] == "websocket.connect"
        assert (await receive())["code"] == 1001

    async with web(hesitates) as service, await service.connect() as client:
        await client.send_all(UPGRADE)
        await service.intake.wait(lambda intake: bool(intake.active))
        await service.stop_accepting()
        may.set()
        received = b""
        with trio.fail_after(4):
            async for chunk in client:
                received += chunk

    assert received.endswith(b"\x88\x13\x03\xe9the service stops")


async def test_an_application_that_fails_closes_with_an_error(web: Any) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        raise ValueError

    async with web(fails) as service, open_websocket_url(url(service)) as socket:
        with trio.fail_after(4), pytest.raises(ConnectionClosed):
            await socket.get_message()
        reason = socket.closed
        await socket._stream.aclose()  # trio-websocket leaves it open when the server closes

    assert reason is not None
    assert reason.code == 1011
    assert [log["event"] for log in service.logs] == ["the application failed"]


@pytest.mark.parametrize(("path", "status"), [("/other", 404), ("/down", 503), ("/fails", 500)])
async def test_a_websocket_that_nobody_accepts_gets_a_status(web: Any, path: str, status: int) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError

    async with web({"/down": Echo(), "/fails": fails}) as service:
        service.targets["/down"].app = None
        received = await service.ask(UPGRADE.replace(b"GET /", b"GET " + path.encode()))

    assert received.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x83\x80\x00\x00\x00\x00", 1002),
        (b"\x81\x82\x00\x00\x00\x00\xff\xff", 1007),
        (b"\x09\x80\x00\x00\x00\x00", 1002),
        (b"\x82\xff" + (2**40).to_bytes(8, "big") + b"\x00\x00\x00\x00" + b"x" * 2000, 1009),
    ],
    ids=["reserved opcode", "invalid utf-8", "fragmented ping", "too long"],
)
async def test_a_client_that_breaks_the_protocol_is_told_how(web: Any, frame: bytes, code: int) -> None:
    app = Echo()
    async with web(app, websocket_max_bytes=1000) as service, await service.connect() as client:
        await client.send_all(UPGRADE)
        with trio.fail_after(4):
            head = await client.receive_some()
            await client.send_all(frame)
            received = b""
            async for chunk in client:
                received += chunk
        await service.intake.wait(lambda intake: not intake.active)

    assert head.startswith(b"HTTP/1.1 101")
    frames = FrameProtocol(client=True, extensions=[])
    frames.receive_bytes(received)
    (last,) = frames.received_frames()
    assert last.opcode is Opcode.CLOSE
    assert last.payload[0] == code  # type: ignore[index]
    assert app.ends == [code]


async def test_compression_is_not_offered(web: Any) -> None:
    asking = UPGRADE[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    async with web(Echo()) as service, await service.connect() as client:
        await client.send_all(asking)
        head = await client.receive_some()

    assert head.startswith(b"HTTP/1.1 101")
    assert b"deflate" not in head


async def test_pings_keep_a_websocket_open_and_do_not_outlive_it(web: Any) -> None:
    app = Echo()
    async with web(app, websocket_ping=0.02) as service:
        async with await service.connect() as client:
            await client.send_all(UPGRADE)
            received = b""
            with trio.fail_after(4):
                while received.count(b"\x89\x00") < 2:
                    received += await client.receive_some()
        await service.wait_connections(0)

    assert app.ends == [1006]


@pytest.mark.slow
async def test_a_client_that_sends_and_never_reads_is_held_back(web: Any) -> None:
    """Its messages wait in its own socket, not in this process."""

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await trio.sleep_forever()

    async with web(deaf) as service, await service.connect() as client:
        await client.send_all(UPGRADE)
        await client.receive_some()
        frame = b"\x82\xfe\xff\x00\x00\x00\x00\x00" + b"x" * 0xFF00
        sent = 0
        with trio.move_on_after(0.3) as scope:
            while True:
                await client.send_all(frame)
                sent += 1
        (connection,) = service.dispatcher._server.connections
        queued = connection._speaker._websocket._inbox._size

    assert scope.cancelled_caught
    assert queued < 2 * 65536


async def test_who_breaks_the_protocol_is_not_waited_for(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel_web.websocket.socket.CLOSE_TIMEOUT", 60.0)
    async with web(Echo()) as service:
        said = await service.ask(UPGRADE + b"\xc1\x80\0\0\0\0")

    assert said.endswith(b"\x88\x10\x03\xeaa reserved bit")


async def test_thousands_of_small_frames_are_taken_a_piece_a_turn(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: Counter[int] = Counter()
    clock = 0
    feed = Frames.feed

    def noted(frames: Frames, data: bytes) -> Any:
        turns[clock] += len(data)
        return feed(frames, data)

    async def count() -> None:
        nonlocal clock
        while True:
            await trio.lowlevel.checkpoint()
            clock += 1

    monkeypatch.setattr(Frames, "feed", noted)
    async with web(Echo()) as service, await service.connect() as stream, trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await stream.send_all(UPGRADE)
        await stream.receive_some()
        await stream.send_all(b"\x89\x80\0\0\0\0" * 8_000)
        pongs = 0
        with trio.fail_after(10):
            while pongs < 16_000:
                pongs += len(await stream.receive_some())
        nursery.cancel_scope.cancel()

    assert len(turns) >= 6
    assert max(turns.values()) <= 2 * 8192  # a turn runs its tasks in any order
