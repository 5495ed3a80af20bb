"""What a call costs over ZeroMQ and over websockets: ours, and those of others, in turns and with the same client.

`uv run python benchmarks/calls.py [--seconds 2] [--rounds 5]`

Each server is a process of its own and gets what the same client sends, so that a line compares servers alone:

- ZeroMQ: a REQ socket of pyzmq, one call after the other, with service-framework's bodies, to a REP loop on bare pyzmq,
  to service-framework, and to a `zmq_reply` with the protocol `service_framework`; and 16 connections as of 16 REQ
  sockets, one call after the other on each, to the same three;
- websockets: 16 connections, one call after the other on each, with micro-framework's bodies, to micro-framework, and to
  a `websocket` with `ufw_websocket`; and with those of JSON-RPC to a `websocket` with `jsonrpc`.

The client with 16 connections is a loop on bare sockets, since any library takes longer for a call than the servers.

Printed are calls a second (the middle of the rounds), CPU of the server for each, its CPU at 50 calls a second and while
nothing is asked, and what of the bounds is met, as medians of the ratios of each round.
The environments of the rivals are those of the tests' peers, and uv builds them. RPC over RabbitMQ is in `amqp.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeAlias, final

import attrs
import msgpack  # pyright: ignore[reportMissingTypeStubs]  it has none
import zmq

from kernel.testing import free_port

PEERS = Path(__file__).parent.parent / "tests" / "wires" / "peers"
TICKS = os.sysconf("SC_CLK_TCK")
CALLERS: Final = 16
PACE: Final = 50
"""Calls a second in the part of a round in which the rate is the same for all."""
UFW: Final[dict[str, Any]] = {"command": "add", "command_args": [1], "command_kwargs": {"b": 5}}
JSONRPC: Final[dict[str, Any]] = {"jsonrpc": "2.0", "id": 1, "method": "sum.add", "params": [1, 5]}

Call: TypeAlias = Callable[[int, float, float], int]
"""Calls what listens on a port for so many seconds, each so many seconds after the one before, and returns how often."""
Bound: TypeAlias = "tuple[str, str, str, Callable[[Figures, Figures], float], float]"

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
def running(command: list[str], port: int) -> Generator[int]:
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


def ours(plugin: str, protocol: str, where: str, worker: str, folder: str) -> list[str]:
    Path(folder, "desk.py").write_text(DESK)
    text = MANIFEST.format(plugin=plugin, protocol=protocol, where=where, worker=worker)
    Path(folder, "kernel.toml").write_text(text)
    return [sys.executable, "-m", "kernel", "run", f"{folder}/kernel.toml"]


def call_zmq(port: int, seconds: float, pause: float) -> int:
    context = zmq.Context()
    request = context.socket(zmq.REQ)
    request.linger = 0
    request.connect(f"tcp://127.0.0.1:{port}")
    library: Any = msgpack
    body: bytes = library.packb({"args": {"sku": "tea", "amount": 2}, "workflow_id": "w"})
    count, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        request.send(body)
        assert b"return_args" in request.recv()
        count += 1
        time.sleep(pause)
    request.close()
    context.term()
    return count


def call_as_reqs() -> Call:
    """Return what calls from `CALLERS` connections, each as a REQ socket does. Source: ZeroMQ RFC 23, ZMTP 3.0."""
    library: Any = msgpack
    body: bytes = library.packb({"args": {"sku": "tea", "amount": 2}, "workflow_id": "w"})
    return call_many(greeted, bytes([1, 0, 0, len(body)]) + body, b"return_args", head=4)


def call_websockets(body: dict[str, Any], good: bytes) -> Call:
    """Return what calls from `CALLERS` connections; an answer has to hold what is good."""
    text = json.dumps(body).encode()
    masked = bytes([0x81, 0x80 | len(text)]) + bytes(4) + text  # with zeros
    return call_many(connected, masked, good, head=2)


def call_many(connect: Callable[[int], socket.socket], frame: bytes, good: bytes, *, head: int) -> Call:
    """Return what calls from `CALLERS` connections.

    Args:
        connect: Connects to a port.
        frame: What is sent for a call.
        good: What an answer has to hold.
        head: Bytes before the body of an answer; the last of them is its length.
    """

    def call(port: int, seconds: float, pause: float) -> int:
        callers = [connect(port) for _ in range(CALLERS)]
        try:
            return calls(callers if not pause else callers[:1], frame, good, head, (seconds, pause))
        finally:
            for caller in callers:
                caller.close()

    return call


def greeted(port: int) -> socket.socket:
    """Return a connection after the handshake of ZMTP, without keys."""
    connection = opened(port)
    connection.sendall(b"\xff" + bytes(8) + b"\x7f\3\0" + b"NULL".ljust(20, b"\0") + bytes(32))
    connection.recv(64, socket.MSG_WAITALL)
    ready = b"\5READY" + b"\x0bSocket-Type" + (3).to_bytes(4) + b"REQ"
    connection.sendall(bytes([4, len(ready)]) + ready)
    connection.recv(connection.recv(2, socket.MSG_WAITALL)[1], socket.MSG_WAITALL)
    return connection


def opened(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def connected(port: int) -> socket.socket:
    """Return a connection after the handshake of websockets."""
    connection = opened(port)
    connection.sendall(
        b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    assert b" 101 " in head
    return connection


def calls(callers: list[socket.socket], frame: bytes, good: bytes, head: int, times: tuple[float, float]) -> int:
    count, (seconds, pause) = 0, times
    by_number = {caller.fileno(): caller for caller in callers}
    until = time.perf_counter() + seconds
    with selectors.DefaultSelector() as selector:
        for number, caller in by_number.items():
            selector.register(number, selectors.EVENT_READ)
            caller.sendall(frame)
        while time.perf_counter() < until:
            for key, _ in selector.select(0.1):
                answer = by_number[key.fd].recv(4096)  # comes in one piece, as short as it is
                assert answer[head - 1] == len(answer) - head, answer
                assert good in answer
                count += 1
                time.sleep(pause)
                by_number[key.fd].sendall(frame)
    return count


@final
@attrs.frozen
class Figures:
    """What a server took for one round."""

    rate: float
    cpu: float
    """Seconds for each call."""
    paced: float
    """Of a core, at `PACE` calls a second."""
    idle: float
    """Of a core, while nothing is asked."""


@final
@attrs.frozen
class Server:
    command: Callable[[int, str], list[str]]
    call: Call


def measured(server: Server, seconds: float) -> Figures:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, running(server.command(port, folder), port) as group:
        server.call(port, 0.2, 0)
        marks = [cpu_of(group)]
        time.sleep(seconds)
        marks.append(cpu_of(group))
        server.call(port, seconds, 1 / PACE)
        marks.append(cpu_of(group))
        count = server.call(port, seconds, 0)
        marks.append(cpu_of(group))
        idle, paced, full = (after - before for before, after in pairwise(marks))
        return Figures(count / seconds, full / count, paced / seconds, idle / seconds)


def servers() -> dict[str, Server]:
    peer = ["uv", "run", "--quiet", "--script"]
    over_zmq: dict[str, Callable[[int, str], list[str]]] = {
        "bare": lambda port, _: [sys.executable, "-c", BARE, str(port)],
        "service-framework": lambda port, _: [*peer, str(PEERS / "service_framework_peer.py"), "--serve", str(port)],
        "ours": lambda port, folder: ours(
            "zmq_reply", "service_framework", f'bind = ["127.0.0.1:{port}"]\nsubject = "quote"', "quote", folder
        ),
    }
    call_reqs, call_ufw = call_as_reqs(), call_websockets(UFW, b'"data"')
    return {
        **{f"zmq {name}": Server(command, call_zmq) for name, command in over_zmq.items()},
        **{f"zmq x{CALLERS} {name}": Server(command, call_reqs) for name, command in over_zmq.items()},
        "websocket micro-framework": Server(
            lambda port, _: [*peer, str(PEERS / "micro_websocket.py"), "serve", str(port), str(CALLERS)], call_ufw),
        "websocket ours": Server(
            lambda port, folder: ours("websocket", "ufw_websocket", f"port = {port}", "add", folder), call_ufw),
        "JSON-RPC ours": Server(
            lambda port, folder: ours("websocket", "jsonrpc", f"port = {port}", "add", folder),
            call_websockets(JSONRPC, b'"result"')),
    }  # fmt: skip


def bounds_of_zmq(ours_: str, bare: str, theirs: str) -> list[Bound]:
    return [
        (ours_, bare, "rate", lambda us, them: us.rate / them.rate, 0.4),
        (ours_, theirs, "rate", lambda us, them: us.rate / them.rate, 4),
        (ours_, theirs, "1 / CPU a call", lambda us, them: them.cpu / us.cpu, 10),
    ]


BOUNDS: Final[list[Bound]] = [
    *bounds_of_zmq("zmq ours", "zmq bare", "zmq service-framework"),
    ("zmq ours", "zmq service-framework", "1 / CPU at 50/s", lambda us, them: them.paced / max(us.paced, 0.01), 10),
    *bounds_of_zmq(*(f"zmq x{CALLERS} {name}" for name in ("ours", "bare", "service-framework"))),
    ("websocket ours", "websocket micro-framework", "rate", lambda us, them: us.rate / them.rate, 3),
    ("JSON-RPC ours", "websocket micro-framework", "rate", lambda us, them: us.rate / them.rate, 3),
]
"""Who is held against whom, in what, how it is counted, and what it is to be at least."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="what the names of the servers begin with")
    arguments = parser.parse_args()
    running = {name: server for name, server in servers().items() if name.startswith(arguments.only)}
    rounds: dict[str, list[Figures]] = {name: [] for name in running}
    for _ in range(arguments.rounds):
        for name, server in running.items():
            rounds[name].append(measured(server, arguments.seconds))
    print(f"{'server':28}{'calls/s':>10}{'CPU us/call':>14}{f'CPU at {PACE}/s':>14}{'idle CPU':>10}")
    for name, results in rounds.items():
        rate, cost, paced, idle = (
            statistics.median(column) for column in zip(*map(attrs.astuple, results), strict=True)
        )
        print(f"{name:28}{rate:10.0f}{cost * 1e6:14.0f}{paced:14.1%}{idle:10.1%}")
    for ours_, theirs, what, ratio, least in BOUNDS:
        if ours_ in rounds and theirs in rounds:
            found = statistics.median(map(ratio, rounds[ours_], rounds[theirs]))
            print(
                f"{ours_}, {what} against {theirs}: {found:.2f}; bound {least:g}: {'met' if found >= least else 'NOT met'}"
            )


if __name__ == "__main__":
    main()
