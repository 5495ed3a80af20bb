"""What strangers say: a handshake, and frames as they like them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def masked(opcode: int, payload: bytes, *, length: bytes | None = None) -> bytes:
    """Write a frame as a client does; its mask is nothing but zeros."""
    return bytes([opcode]) + (length or bytes([0x80 | len(payload)])) + bytes(4) + payload


def plain(opcode: int, payload: bytes, *, length: bytes | None = None) -> bytes:
    """Write a frame as a server does."""
    size = bytes([len(payload)]) if length is None else bytes([length[0] & 0x7F]) + length[1:]
    return bytes([opcode]) + size + payload


async def read_head(stream: trio.abc.ReceiveStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        part = await stream.receive_some()
        assert part, head
        head += part
    return head


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Return what comes until the connection ends, however it does."""
    said = b""
    try:
        while part := await stream.receive_some():
            said += part
    except trio.BrokenResourceError:
        pass
    return said


@asynccontextmanager
async def raw(url: str) -> AsyncGenerator[trio.SocketStream]:
    port = urlsplit(url).port
    assert port
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield stream
