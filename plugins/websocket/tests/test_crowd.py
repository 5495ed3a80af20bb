"""Many hostile peers at once, in front of a service in a process of its own: what it costs, and that it goes on.

`KERNEL_CROWD=1000` sets how many; what was measured is printed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, HandshakeError

from .service import open_socket
from .strangers import REQUEST, masked, plain, read_head

pytestmark = pytest.mark.slow
CROWD = int(os.environ.get("KERNEL_CROWD", "40"))
MIB = 1024 * 1024
CALL = b'{"jsonrpc": "2.0", "method": "%s", "params": [4], "id": 1}'
LONG = b"\xff" + (MIB + 1).to_bytes(8, "big")
WORKERS = """
from kernel import answers

class Desk:
    @answers("double")
    async def double(self, number: int) -> int:
        return number * 2

    @answers("big")
    async def big(self, number: int) -> str:
        return "x" * 900_000
"""
LISTENERS = {
    "port": """
[dispatchers.calls]
plugin = "websocket"
port = 0
protocol = "jsonrpc"
send_timeout = 2.0
""",
    "door": """
[drivers.door]
plugin = "websocket"

[dispatchers.calls]
plugin = "websocket"
driver = "door"
protocol = "jsonrpc"
send_timeout = 2.0

[dispatchers.web]
plugin = "web"
bind = "127.0.0.1:0"
max_connections = 2000
write_timeout = 2.0

[workers.gate]
use = "kernel_websocket:WebSocketApp"
dispatcher = "web"
""",
}
COMMON = """
[kernel]
name = "crowded"

[workers.desk]
use = "crowded:Desk"
dispatcher = "calls"
"""
Peer = Callable[[trio.SocketStream], Awaitable[None]]


async def idle(stream: trio.SocketStream) -> None:
    """Say nothing."""


async def half_a_handshake(stream: trio.SocketStream) -> None:
    await stream.send_all(REQUEST[:-10])


async def idle_once_it_is_in(stream: trio.SocketStream) -> None:
    await stream.send_all(REQUEST)


async def half_a_frame(stream: trio.SocketStream) -> None:
    await stream.send_all(REQUEST + masked(0x81, b"x" * (MIB - 1), length=b"\xff" + MIB.to_bytes(8, "big")))


async def never_reading(stream: trio.SocketStream) -> None:
    await stream.send_all(REQUEST + masked(0x81, CALL % b"big") * 200)


async def oversized(stream: trio.SocketStream) -> None:
    await stream.send_all(REQUEST + masked(0x81, b"x" * (MIB + 1), length=LONG))


async def deep(stream: trio.SocketStream) -> None:
    for opening in (b"[", b'{"a":'):
        text = opening * (MIB // len(opening) - 1)
        await stream.send_all(masked(0x81, text, length=b"\xff" + len(text).to_bytes(8, "big")))


async def deep_json(stream: trio.SocketStream) -> None:
    await stream.send_all(REQUEST)
    await read_head(stream)
    await deep(stream)


async def without_a_mask(stream: trio.SocketStream) -> None:
    await stream.send_all(REQUEST + plain(0x81, b"x"))


async def a_message_without_an_end(stream: trio.SocketStream) -> None:
    await stream.send_all(REQUEST + masked(0x01, b"x"))
    for _ in range(50):
        await stream.send_all(masked(0x00, b"") * 1000)


async def pinging(stream: trio.SocketStream) -> None:
    await stream.send_all(REQUEST)
    for _ in range(50):
        await stream.send_all(masked(0x89, b"x" * 100) * 100)


PEERS: list[Peer] = [
    idle, half_a_handshake, idle_once_it_is_in, half_a_frame, never_reading, oversized, deep_json, without_a_mask,
    a_message_without_an_end, pinging,
]  # fmt: skip


async def be(peer: Peer, port: int) -> None:
    """Connect and do the worst; then stay."""
    with suppress(OSError):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            with suppress(trio.BrokenResourceError, AssertionError):
                await peer(stream)
            await trio.sleep_forever()


class Service:
    """A service in a process of its own."""

    def __init__(self, process: trio.Process, port: int) -> None:
        self.process, self.port = process, port

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def mebibytes(self, which: str) -> float:
        """Return `VmRSS`, what it has, or `VmHWM`, the most that it had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith(which)]
        return int(line.split()[1]) / 1024

    async def call(self) -> None:
        """Call as a good client does: connect, ask, and read."""
        async with open_socket(self.url) as socket:
            await socket.send_message((CALL % b"double").decode())
            assert json.loads(await socket.get_message())["result"] == 8

    async def wait_descriptors(self, most: int) -> None:
        while self.descriptors > most:
            await self.call()  # a call or so later its connections have ended


@asynccontextmanager
async def running(way: str, folder: Path) -> AsyncGenerator[Service]:
    (folder / "crowded.py").write_text(WORKERS)
    (folder / "kernel.toml").write_text(COMMON + LISTENERS[way])
    with (folder / "log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "kernel", "run", "kernel.toml"], cwd=folder, stdout=subprocess.DEVNULL, stderr=log
        )
    try:
        while "kernel: ready" not in (said := (folder / "log").read_text()):
            assert process.poll() is None, said
            await trio.sleep(0.05)
        [port] = re.findall(r"address=\w+://127.0.0.1:(\d+)", said)
        yield Service(process, int(port))
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.mark.parametrize("way", LISTENERS)
async def test_a_crowd_costs_what_its_limits_say_and_a_good_client_is_served(way: str, tmp_path: Path) -> None:
    figures: dict[str, Any] = {"way": way, "peers": CROWD}
    with trio.fail_after(240):
        async with running(way, tmp_path) as service, open_socket(service.url) as good:
            await service.call()
            before = service.descriptors
            figures["before MiB"] = service.mebibytes("VmRSS")
            async with trio.open_nursery() as crowd:
                for number in range(CROWD):
                    crowd.start_soon(be, PEERS[number % len(PEERS)], service.port)
                took = []
                for _ in range(10):
                    began = time.perf_counter()
                    await service.call()
                    took.append(time.perf_counter() - began)
                figures |= {"slowest call s": max(took), "descriptors": service.descriptors - before}
                crowd.cancel_scope.cancel()
            await service.wait_descriptors(before + 2)
            figures |= {"most MiB": service.mebibytes("VmHWM"), "after MiB": service.mebibytes("VmRSS")}
            await good.send_message((CALL % b"double").decode())
            assert json.loads(await good.get_message())["result"] == 8
            async with trio.open_nursery() as crowd:
                for number in range(CROWD):
                    crowd.start_soon(be, PEERS[number % len(PEERS)], service.port)
                await service.call()
                began = time.perf_counter()
                service.process.send_signal(signal.SIGTERM)
                with suppress(ConnectionClosed, HandshakeError):
                    await good.get_message()
                figures |= {"status": await service.process.wait(), "stop s": time.perf_counter() - began}
                crowd.cancel_scope.cancel()
    print(json.dumps(figures))  # noqa: T201

    assert figures["status"] in {0, 3}  # 3: something had to be cut, as who does not read has to be
    assert figures["descriptors"] <= CROWD + 10
    assert figures["most MiB"] - figures["before MiB"] < 20 + 2 * CROWD
    assert figures["stop s"] < 25  # the grace period
