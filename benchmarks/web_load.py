"""What `web.py` drives servers with: wrk, h2load, and clients of its own for websockets and for idle connections."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import trustme

HANDSHAKE: Final = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
TEXT: Final = b"a small message of 32 characters"
MESSAGE: Final = bytes((0x81, 0x80 | len(TEXT))) + bytes(4) + TEXT
"""Masked with zeros, which is allowed, and costs this client nothing."""
ANSWER: Final = len(TEXT) + 2
GET: Final = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Running(NamedTuple):
    """A server: where it listens, and its process."""

    url: str
    pid: int

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 0)

    def cpu(self) -> float:
        """Return the seconds of CPU that it and its children have taken."""
        ticks = 0
        for pid in self._pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Return the bytes that it and its children occupy."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._pids())
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _pids(self) -> list[int]:
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, found)]


class Round(NamedTuple):
    """What one run showed."""

    rate: float
    p99: float
    """Milliseconds."""
    cpu: float
    """Microseconds for each request."""


def wrk(server: Running, *, seconds: float, connections: int, script: str) -> Round:
    """Drive HTTP/1.1, over TLS if the URL says so; any answer that is not 200 is an error."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", *(["-s", script] if script else [])]
    text, spent = _run([*command, server.url], server)
    rate, total = re.search(r"Requests/sec:\s+([\d.]+)", text), re.search(r"(\d+) requests in", text)
    late = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    if "Non-2xx" in text or "Socket errors" in text or rate is None or total is None or late is None:
        raise SystemExit(text)
    return Round(float(rate[1]), float(late[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[late[2]], spent / int(total[1]) * 1e6)


def h2load(server: Running, *, seconds: float, connections: int, script: str) -> Round:
    """Drive HTTP/2 by prior knowledge, with ten streams on each connection; `script` is not used."""
    command = ["h2load", "-t1", f"-c{connections}", "-m10", f"-D{max(1, round(seconds))}", server.url]
    text, spent = _run(command, server)
    rate, done = re.search(r"([\d.]+) req/s", text), re.search(r"(\d+) succeeded, (\d+) failed", text)
    late = re.search(r"time for request:\s+\S+\s+(\S+?)(us|ms|s)\s", text)
    if rate is None or done is None or late is None or not int(done[1]):
        raise SystemExit(text)
    slowest = float(late[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[late[2]]
    return Round(float(rate[1]), slowest, spent / int(done[1]) * 1e6)


def _run(command: list[str], server: Running) -> tuple[str, float]:
    if shutil.which(command[0]) is None:
        raise SystemExit(f"{command[0]} is not on PATH (Debian: wrk, nghttp2-client)")
    before = server.cpu()
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return text, server.cpu() - before


def websocket(server: Running, *, seconds: float, connections: int, script: str) -> Round:
    """Echo small messages, one at a time on each connection; `script` is not used."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_open_websocket(server)) for _ in range(connections)]
        poll = select.epoll()
        by_fd = {client.fileno(): client for client in clients}
        began, spent, late = time.perf_counter(), server.cpu(), list[float]()
        sent = dict.fromkeys(by_fd, began)
        for fd, client in by_fd.items():
            poll.register(fd, select.EPOLLIN)
            client.send(MESSAGE)
        while (now := time.perf_counter()) < began + seconds:
            for fd, _ in poll.poll(1):
                if len(by_fd[fd].recv(1024)) != ANSWER:
                    raise SystemExit("a message did not come back whole")
                late.append(now - sent[fd])
                sent[fd] = now
                by_fd[fd].send(MESSAGE)
        spent, took = server.cpu() - spent, time.perf_counter() - began
    return Round(len(late) / took, sorted(late)[int(len(late) * 0.99)] * 1e3, spent / len(late) * 1e6)


def _open_websocket(server: Running) -> socket.socket:
    client = socket.create_connection(server.place)
    client.sendall(HANDSHAKE)
    if b" 101 " not in _head(client):
        raise SystemExit("the handshake was refused")
    return client


def _head(client: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = client.recv(1)
        if not piece:
            raise SystemExit("a connection was refused")
        head += piece
    return head


def idle(server: Running, *, count: int) -> float:
    """Open connections that ask once and then stay; return the bytes that each occupies in the server."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, count + 1000), most))
    with contextlib.ExitStack() as stack:
        for client in _ask_once(server, 100):  # what the first requests bring is no connection's
            client.close()
        before = server.memory()
        clients = [stack.enter_context(client) for client in _ask_once(server, count)]
        return (server.memory() - before) / len(clients)


def _ask_once(server: Running, count: int) -> Iterator[socket.socket]:
    for _ in range(count):
        client = socket.create_connection(server.place)
        client.sendall(GET)
        client.recv(4096)
        yield client


def make_certificate(folder: Path) -> None:
    """Write `cert` and `key` for this machine."""
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "key"))
    (folder / "cert").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))


def wait_open(server: Running) -> None:
    """Wait until a server takes connections: some say their address before they do."""
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(server.place, timeout=1):
            return
        time.sleep(0.1)
    raise SystemExit(f"nobody listens at {server.url}")
