"""What a call costs over ZeroMQ and over websockets: ours, and those of others, in turns and with the same client.

`uv run python benchmarks/calls.py [--seconds 2] [--rounds 5]`

Each server is a process of its own and gets what the same client sends, so that a line compares servers alone:

- ZeroMQ: a REQ socket of pyzmq, one call after the other, with service-framework's bodies, to a REP loop on bare pyzmq,
  to service-framework, and to a `zmq_reply` with the protocol `service_framework`;
- websockets: 16 connections, one call after the other on each, with micro-framework's bodies, to micro-framework, and to
  a `websocket` with `ufw_websocket`.

Printed are calls a second (the middle of the rounds), CPU of the server for each, and its CPU while nothing is asked.
The environments of the rivals are those of the tests' peers, and uv builds them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
import trio
import zmq
from trio_websocket import open_websocket_url

PEERS = Path(__file__).parent.parent / "tests" / "wires" / "peers"
TICKS = os.sysconf("SC_CLK_TCK")

BARE = """
import sys, msgpack, zmq
socket = zmq.Context().socket(zmq.REP)
socket.bind(f"tcp://127.0.0.1:{sys.argv[1]}")
while True:
    asked = msgpack.unpackb(socket.recv())
    answer = {"price": 3 * asked["args"]["amount"], "tags": ["a"]}
    socket.send(msgpack.packb({"return_args": answer, "workflow_id": asked["workflow_id"]}))
"""
DESK = """
from kernel import answers

@answers("quote")
async def quote(sku: str, amount: int) -> dict[str, object]:
    return {"price": 3 * amount, "tags": ["a"]}

@answers("*.add")
async def add(a: int, b: int = 1) -> int:
    return a + b
"""
MANIFEST = """
[kernel]
name = "bench"
[dispatchers.quote]
plugin = "{plugin}"
protocol = "{protocol}"
{where}
[workers.desk]
use = "desk:{worker}"
dispatcher = "quote"
"""


@contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """Run a server until it has been measured; yields the id of its process when it listens."""
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_listening(port, process)
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("the server does not listen")


def cpu_of(group: int) -> float:
    """Return the seconds of CPU that the processes of a group have had."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def ours(plugin: str, protocol: str, where: str, worker: str, folder: str) -> list[str]:
    Path(folder, "desk.py").write_text(DESK)
    text = MANIFEST.format(plugin=plugin, protocol=protocol, where=where, worker=worker)
    Path(folder, "kernel.toml").write_text(text)
    return [sys.executable, "-m", "kernel", "run", f"{folder}/kernel.toml"]


def call_zmq(port: int, seconds: float) -> int:
    context = zmq.Context()
    request = context.socket(zmq.REQ)
    request.linger = 0
    request.connect(f"tcp://127.0.0.1:{port}")
    body = msgpack.packb({"args": {"sku": "tea", "amount": 2}, "workflow_id": "w"})
    count, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        request.send(body)
        assert b"return_args" in request.recv()
        count += 1
    request.close()
    context.term()
    return count


def call_websockets(port: int, seconds: float) -> int:
    body = json.dumps({"command": "add", "command_args": [1], "command_kwargs": {"b": 5}})
    counts: list[int] = []

    async def caller() -> None:
        count, until = 0, time.perf_counter() + seconds
        async with open_websocket_url(f"ws://127.0.0.1:{port}/") as connection:
            while time.perf_counter() < until:
                await connection.send_message(body)
                answer = await connection.get_message()
                count += '"data"' in answer and "MaxConnections" not in answer
        counts.append(count)

    async def all_callers() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(caller)

    trio.run(all_callers)
    return sum(counts)


def measured(
    command: Callable[[int, str], list[str]], call: Callable[[int, float], int], seconds: float
) -> list[float]:
    """Return calls a second, and seconds of the server's CPU for each call, and for each idle second."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, running(command(port, folder), port) as group:
        call(port, 0.2)
        idle_from = cpu_of(group)
        time.sleep(min(1.0, seconds))
        before = cpu_of(group)
        count = call(port, seconds)
        return [count / seconds, (cpu_of(group) - before) / count, (before - idle_from) / min(1.0, seconds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    peer = ["uv", "run", "--quiet", "--script"]
    servers: dict[str, tuple[Callable[[int, str], list[str]], Callable[[int, float], int]]] = {
        "zmq bare": (lambda port, _: [sys.executable, "-c", BARE, str(port)], call_zmq),
        "zmq service-framework": (
            lambda port, _: [*peer, str(PEERS / "service_framework_peer.py"), "--serve", str(port)], call_zmq),
        "zmq ours": (
            lambda port, folder: ours(
                "zmq_reply", "service_framework", f'bind = ["127.0.0.1:{port}"]\nsubject = "quote"', "quote", folder),
            call_zmq),
        "websocket micro-framework": (
            lambda port, _: [*peer, str(PEERS / "micro_websocket.py"), "serve", str(port)], call_websockets),
        "websocket ours": (
            lambda port, folder: ours("websocket", "ufw_websocket", f"port = {port}", "add", folder), call_websockets),
    }  # fmt: skip
    rounds: dict[str, list[list[float]]] = {name: [] for name in servers}
    for _ in range(arguments.rounds):
        for name, (command, call) in servers.items():
            rounds[name].append(measured(command, call, arguments.seconds))
    print(f"{'server':28}{'calls/s':>10}{'CPU us/call':>14}{'idle CPU':>10}")
    for name, results in rounds.items():
        rate, cost, idle = (statistics.median(column) for column in zip(*results, strict=True))
        print(f"{name:28}{rate:10.0f}{cost * 1e6:14.0f}{idle:10.0%}")


if __name__ == "__main__":
    main()
