"""The server of scrapes: one request for each connection, and a bound on everything that a client may do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from ._families import scraped

if TYPE_CHECKING:
    from ._config import PrometheusConfig
    from ._metrics import Metrics

HEAD_MAX: Final = 8 * 1024
"""Bytes that a request may have."""


async def serve_scrapes(listeners: Sequence[trio.SocketListener], metrics: Metrics, config: PrometheusConfig) -> None:
    """Answer what comes in until cancelled."""
    open_: dict[trio.SocketStream, trio.CancelScope] = {}

    async def serve(stream: trio.SocketStream) -> None:
        if len(open_) >= config.max_connections:
            # A scraper asks at once: who has been here for longest is the likeliest to have come for something else.
            open_.pop(next(iter(open_))).cancel()
        async with stream:
            with trio.move_on_after(config.timeout) as open_[stream], suppress(trio.BrokenResourceError):
                await stream.send_all(await _answer(await _head(stream), metrics))
        open_.pop(stream, None)

    await trio.serve_listeners(serve, list(listeners))


async def _head(stream: trio.SocketStream) -> bytes:
    """Return what a client sends up to the end of its head; empty if it is none."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = await stream.receive_some(HEAD_MAX)
        received += data
        if not data or len(received) > HEAD_MAX:
            return b""
    return received  # noqa: ASYNC910  it has received at least once


async def _answer(head: bytes, metrics: Metrics) -> bytes:
    await trio.lowlevel.checkpoint()
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return _written("400 Bad Request", b"", is_head=False)
    method, path = words[0], words[1].partition("?")[0]
    if path not in {"/metrics", "/"}:
        return _written("404 Not Found", b"there is /metrics\n", is_head=method == "HEAD")
    if method not in {"GET", "HEAD"}:
        return _written("405 Method Not Allowed", b"GET it\n", is_head=False)
    headers = (line.partition(":") for line in lines[1:])
    accept = next((value.strip() for name, _, value in headers if name.strip().lower() == "accept"), "")
    body, content_type = await scraped(metrics, accept)
    return _written("200 OK", body, content_type, is_head=method == "HEAD")


def _written(status: str, body: bytes, content_type: str = "text/plain; charset=utf-8", *, is_head: bool) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if is_head else body)
