"""A message that nobody can read is put aside, and those behind it are handled: at once, and after a new start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
import trio
from kernel_amqp.core import Properties, Settings
from kernel_amqp.link.connect import LinkSettings
from kernel_amqp.link.link import open_link

from kernel import handles
from kernel.testing import open_kernel

from .conftest import Server

pytestmark = pytest.mark.slow

MANIFEST: Final = """
[kernel]
name = "poisoned"

[drivers.queue]
plugin = "memory"

[drivers.orders]
plugin = "publisher"
driver = "queue"
protocol = "json"

[dispatchers.incoming]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "poisoned"
bindings = ["order.*"]

[workers.reader]
use = "tests.stomp.test_poison:Reader"
dispatcher = "incoming"
"""
LARGE: Final = {
    "a long header": b"a:%b\n" % (b"x" * 70_000),
    "long headers": b"".join(b"h%d:%b\n" % (number, b"x" * 30_000) for number in range(10)),
}
ODD: Final[dict[str, dict[str, object]]] = {
    "a NUL": {"a": "b\0c"},
    "a name with a NUL": {"a\0b": "c"},
    "no name": {"": "b"},
    "no UTF-8": {"a": b"\xff\xfe"},
    "many headers": {f"h{number}": "x" for number in range(300)},
}
read: list[object] = []


class Reader:
    @handles("order.*")
    async def take(self, number: int) -> None:
        read.append(number)


@pytest.mark.parametrize("poison", LARGE.values(), ids=LARGE)
async def test_headers_that_are_too_large_stop_nothing(poison: bytes, rabbit: Server, tmp_path: Path) -> None:
    await _is_survived(rabbit, tmp_path, lambda: _send_raw(rabbit.port, b"/amq/queue/poisoned", poison))


@pytest.mark.parametrize("poison", ODD.values(), ids=ODD)
async def test_headers_that_stomp_cannot_say_stop_nothing(
    poison: dict[str, object], rabbit: Server, tmp_path: Path
) -> None:
    """They come over AMQP, of a program that is not the kernel's."""
    core = Settings(response="\0guest\0guest")

    async def send() -> None:
        async with (
            open_link(LinkSettings(hosts=(("127.0.0.1", rabbit.process.port),), core=core)) as link,
            link.open_channel() as channel,
        ):
            table = Properties(headers=poison, content_type="application/json")
            await channel.publish(exchange="", routing_key="poisoned", properties=table, body=b"0")

    await _is_survived(rabbit, tmp_path, send)


async def _is_survived(server: Server, folder: Path, send: Callable[[], Awaitable[None]]) -> None:
    (folder / "kernel.toml").write_text(MANIFEST)
    replaced = {"drivers.queue": server.table}
    for first in (1, 3):
        read.clear()
        async with open_kernel(folder / "kernel.toml", replace=replaced, expected=Exception) as service:
            await service.publish("orders", "order.made", first)
            await send()
            await service.publish("orders", "order.made", first + 1)
            await service.wait_settled(2, matching=lambda event: event.subject == "order.made")
        assert {first, first + 1} <= set(read)


async def _send_raw(port: int, place: bytes, headers: bytes) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(b"CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\n\0")
        await _wait_for(stream, b"CONNECTED")
        await stream.send_all(b"SEND\ndestination:%b\n%breceipt:done\n\n0\0" % (place, headers))
        await _wait_for(stream, b"receipt-id:done")


async def _wait_for(stream: trio.SocketStream, words: bytes) -> None:
    heard = b""
    while words not in heard:
        data = await stream.receive_some(65536)
        assert data, heard[:500]
        heard += data
