"""What one peer sends or does ends its connection, and nothing else."""

from __future__ import annotations

import base64
import contextlib
import gc
import hashlib
import json
import socket
import tracemalloc
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs
import pytest
import structlog
import trio
import trio.testing
from kernel_websocket import JsonRpcProtocol, WebSocketClient
from kernel_websocket._boundary import BoundedStream, _socket_of, contained
from trio_websocket import ConnectionClosed
from wsproto.utilities import LocalProtocolError

from kernel import ComponentFailed, answers
from kernel.errors import UnavailableError, UnknownOutcomeError
from kernel.testing import RunningService, fake_context

from .service import calling, double, open_socket, serving, url_of
from .strangers import REQUEST, masked, plain, raw, read_all, read_head

pytestmark = pytest.mark.usefixtures("either_way")
_LONG = b"x" * 126


Frame = Callable[..., bytes]
MALFORMED: dict[str, tuple[Callable[[Frame], bytes], int | None]] = {
    "reserved bits": (lambda frame: frame(0xF1, b""), 1002),
    "reserved opcode": (lambda frame: frame(0x83, b""), 1002),
    "reserved control opcode": (lambda frame: frame(0x8B, b""), 1002),
    "text that is not UTF-8": (lambda frame: frame(0x81, b"\xff\xfe"), 1007),
    "text that ends within a character": (lambda frame: frame(0x81, b"\xe2\x82"), 1007),
    "close code 1": (lambda frame: frame(0x88, b"\0\1"), 1002),
    "close code 1006": (lambda frame: frame(0x88, b"\x03\xee"), 1002),
    "half a close code": (lambda frame: frame(0x88, b"\3"), 1002),
    "close reason that is not UTF-8": (lambda frame: frame(0x88, b"\x03\xe8\xff"), 1007),
    "ping over 125 bytes": (lambda frame: frame(0x89, _LONG, length=b"\xfe\0\x7e"), 1002),
    "ping in parts": (lambda frame: frame(0x09, b""), 1002),
    "length in more bytes than needed": (lambda frame: frame(0x81, b"x", length=b"\xfe\0\1"), 1002),
    "length of 64 bits for little": (lambda frame: frame(0x81, b"x", length=b"\xff" + bytes(7) + b"\1"), 1002),
    "length above 63 bits": (lambda frame: frame(0x81, b"", length=b"\xff" * 9), 1002),
    "continuation of nothing": (lambda frame: frame(0x80, b"x"), 1002),
    "text within a text": (lambda frame: frame(0x01, b"x") + frame(0x81, b"y"), 1002),
    "mask that should be the other way": (lambda frame: (plain if frame is masked else masked)(0x81, b"x"), 1002),
    "malformed, and then more": (lambda frame: frame(0xF1, b"") + frame(0x89, b"x") * 3000, 1002),
    "half a frame, and it leaves": (lambda _: b"\x81", None),
    "close, and then pings": (lambda frame: frame(0x88, b"\x03\xe8") + frame(0x89, b"x") * 50, 1000),
}


def close_code(said: bytes) -> int | None:
    """Return the code of the close frame that ends what was said."""
    return int.from_bytes(said[-2:], "big") if said[-4:-2] == b"\x88\x02" else _with_reason(said)


def _with_reason(said: bytes) -> int | None:
    at = said.rfind(b"\x88")
    return int.from_bytes(said[at + 2 : at + 4], "big") if at >= 0 else None


class Big:
    asked = 0

    @answers("big")
    async def big(self) -> str:
        self.asked += 1
        return "x" * 900_000


@asynccontextmanager
async def beside_a_good_client(**table: Any) -> AsyncGenerator[RunningService]:
    """Serve; whatever the test does, a connection that was there before goes on, and the dispatcher never failed."""
    async with serving({"double": double, "big": Big}, **table) as service, open_socket(url_of(service)) as good:
        with trio.fail_after(60):
            yield service
            await good.send_message('{"jsonrpc": "2.0", "method": "double", "params": [4], "id": 1}')
            assert json.loads(await good.get_message())["result"] == 8
        assert not [event for event in service.events if isinstance(event, ComponentFailed)]


@pytest.mark.parametrize("together", [False, True], ids=["after the handshake", "with the handshake"])
@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_malformed_ends_its_connection_and_no_other(name: str, together: bool) -> None:
    write, code = MALFORMED[name]
    async with beside_a_good_client() as service, raw(url_of(service)) as stream:
        if together:  # before it is answered, nobody has to look at it; but it ends
            await stream.send_all(REQUEST + write(masked))
            await stream.send_eof()
            await read_all(stream)
            return
        await stream.send_all(REQUEST)
        assert (await read_head(stream)).startswith(b"HTTP/1.1 101")
        await stream.send_all(write(masked))
        await stream.send_eof()
        assert close_code(await read_all(stream)) == code


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x" * 100_000,
        REQUEST.replace(b"Version: 13", b"Version: 12"),
        REQUEST.replace(b"Sec-WebSocket-Key", b"X"),
        REQUEST.replace(b"GET", b"POST"),
        REQUEST.replace(b"Host: x", b"Content-Length: 10"),
    ],
)
async def test_what_is_no_handshake_ends_its_connection_and_no_other(sent: bytes) -> None:
    async with beside_a_good_client() as service, raw(url_of(service)) as stream:
        await stream.send_all(sent)
        await stream.send_eof()
        assert b" 101 " not in await read_all(stream)


async def test_a_defect_of_ours_ends_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    read = JsonRpcProtocol.read

    def defective(self: JsonRpcProtocol, text: bytes, *, now: float) -> Any:
        if text == b"strike":
            raise LookupError("a defect")
        return read(self, text, now=now)

    monkeypatch.setattr(JsonRpcProtocol, "read", defective)
    async with beside_a_good_client() as service, open_socket(url_of(service)) as socket:
        await socket.send_message("strike")
        with pytest.raises(ConnectionClosed):
            await socket.get_message()


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (ConnectionClosed(None), "debug"),
        (trio.ClosedResourceError(), "debug"),
        (ExceptionGroup("", [ExceptionGroup("", [LocalProtocolError()])]), "debug"),
        (ConnectionResetError(), "debug"),
        (LookupError(), "error"),
        (ExceptionGroup("", [trio.BrokenResourceError(), AssertionError()]), "error"),
    ],
)
def test_only_what_a_peer_cannot_bring_about_is_logged_as_a_defect(error: Exception, level: str) -> None:
    context = attrs.evolve(fake_context("dispatcher/web"), log=structlog.get_logger())
    with structlog.testing.capture_logs() as logged, contained(context):
        raise error
    assert logged[-1]["log_level"] == level


async def ping_for_ever(stream: trio.SocketStream) -> None:
    with trio.fail_after(5):
        while True:
            await stream.send_all(masked(0x89, b"x") * 10)


async def test_a_peer_that_pings_and_does_not_read_is_disconnected_in_time() -> None:
    call = b'{"jsonrpc": "2.0", "method": "big", "id": 1}'
    async with beside_a_good_client(send_timeout=0.2, concurrency=60) as service, raw(url_of(service)) as stream:
        await stream.send_all(REQUEST)
        await read_head(stream)
        await stream.send_all(masked(0x81, call) * 50)
        with pytest.raises(trio.BrokenResourceError):
            await ping_for_ever(stream)


async def test_a_peer_that_is_told_to_leave_and_pings_instead_is_disconnected_in_time() -> None:
    async with beside_a_good_client(send_timeout=0.2, max_bytes=100) as service, raw(url_of(service)) as stream:
        await stream.send_all(REQUEST)
        await read_head(stream)
        await stream.send_all(masked(0x81, b"x" * 120) + masked(0x89, b"x") * 100)
        with trio.fail_after(5):
            assert close_code(await read_all(stream)) == 1009


async def test_a_message_of_empty_frames_that_never_ends_keeps_no_memory() -> None:
    async with beside_a_good_client() as service, raw(url_of(service)) as stream:
        await stream.send_all(REQUEST)
        await read_head(stream)
        await stream.send_all(masked(0x01, b"x"))
        frames = masked(0x00, b"") * 1000
        tracemalloc.start()
        try:
            with contextlib.suppress(trio.BrokenResourceError):
                for _ in range(40):
                    await stream.send_all(frames)
            await trio.testing.wait_all_tasks_blocked()
            grown = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    assert grown < 200_000  # a list of so many has 320,000


async def test_the_system_is_to_notice_a_peer_that_vanishes() -> None:
    async with serving({"double": double}) as service, calling(url_of(service)) as (_, rpc):
        await rpc.double(1)
        streams = [each for each in gc.get_objects() if type(each) is BoundedStream]
        sockets = [_socket_of(each._stream) for each in streams]  # those that earlier tests have closed as well
        asks = [each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) for each in sockets if each.fileno() >= 0]

    assert set(asks) == {1}


async def test_who_does_not_read_its_answers_is_given_no_more() -> None:
    async with beside_a_good_client() as service, raw(url_of(service)) as stream, open_socket(url_of(service)) as good:
        await stream.send_all(REQUEST)
        await read_head(stream)
        await stream.send_all(masked(0x81, b'{"jsonrpc": "2.0", "method": "big", "id": 1}') * 90)
        for _ in range(100):  # turns enough for all of them
            await good.send_message('{"jsonrpc": "2.0", "method": "double", "params": [2], "id": 1}')
            await good.get_message()

        assert 0 < service.resource("worker/big").asked < 30


async def test_who_does_not_end_its_handshake_makes_place_for_who_comes() -> None:
    async with beside_a_good_client(max_connections=2) as service, AsyncExitStack() as idle:
        lazy = [await idle.enter_async_context(raw(url_of(service))) for _ in range(10)]
        for stream in lazy:
            await stream.send_all(REQUEST[:20])
        async with open_socket(url_of(service)) as good:
            await good.send_message('{"jsonrpc": "2.0", "method": "double", "params": [2], "id": 1}')
            assert json.loads(await good.get_message())["result"] == 4


# --- the driver -----------------------------------------------------------------------------------------------------


def _accept(head: bytes) -> bytes:
    [key] = [line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")]
    digest = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + digest + b"\r\n\r\n"
    )


async def answer_well(stream: trio.SocketStream) -> None:
    """Answer one call as a server should."""
    await stream.send_all(_accept(await read_head(stream)))
    frame = b""
    while len(frame) < 6 or len(frame) < 6 + (frame[1] & 0x7F):
        frame += await stream.receive_some()
    asked = json.loads(bytes(byte ^ frame[2 + at % 4] for at, byte in enumerate(frame[6:])))
    await stream.send_all(plain(0x81, json.dumps({"jsonrpc": "2.0", "result": 8, "id": asked["id"]}).encode()))
    await read_all(stream)


async def answer_of(rpc: WebSocketClient) -> object:
    """Call until there is an answer: a call whose connection breaks ends with it."""
    while True:
        try:
            return await rpc.double(4)
        except (UnavailableError, UnknownOutcomeError):
            continue


@pytest.mark.parametrize("name", [*MALFORMED, "no HTTP", "wrong key"])
async def test_a_server_that_says_what_is_malformed_is_connected_again(name: str) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    tries = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal tries
        tries += 1
        async with stream:
            if tries > 2:
                await answer_well(stream)
                return
            head = await read_head(stream)
            if name == "no HTTP":
                await stream.send_all(b"\0\1\2\r\n\r\n")
            elif name == "wrong key":
                await stream.send_all(_accept(head.replace(b"Key: ", b"Key: x")))
            else:
                await stream.send_all(_accept(head) + MALFORMED[name][0](plain))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        with trio.fail_after(10):
            async with calling(f"ws://127.0.0.1:{port}/") as (_, rpc):
                assert await answer_of(rpc) == 8
        assert tries == 3
        nursery.cancel_scope.cancel()
