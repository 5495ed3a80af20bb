"""What the dispatcher `web` does to good clients when it is stopped at random moments, and when others are hostile.

    python benchmarks/web_faults.py stop [--times 200]         SIGTERM under load: requests that were dropped, refusals
    python benchmarks/web_faults.py hostile [--seconds 60]     never-readers, slow heads and bodies, early data, broken
                                                               handshakes, resets, floods over HTTP/2, beside good clients

`hostile` prints the 99th percentile of the good clients before and meanwhile, and the memory and descriptors of the service
before, meanwhile, and after everybody has left; and how long it takes to stop. Ends with 1 if something is not as asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

GET: Final = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SIZE: Final = 20_000
"""Of an answer: no more than a socket takes at once."""
UPGRADE: Final = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
H2: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
MANIFEST: Final = """
[kernel]
name = "faults"
drain_timeout = 5
[dispatchers.web]
plugin = "web"
bind = "127.0.0.1:0"
h2c = true
max_connections = 5000
backlog = 1024
[workers.app]
use = "web_faults:app"
dispatcher = "web"
"""


async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  an ASGI application
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            pass
        return
    while (await receive()).get("more_body"):
        pass
    size = 50_000_000 if scope["path"] == "/endless" else SIZE
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    for at in range(0, size, SIZE):
        await send({"type": "http.response.body", "body": b"x" * SIZE, "more_body": at + SIZE < size})


class Service:
    """A kernel in a process of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / "kernel.toml").write_text(MANIFEST)
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        command = [sys.executable, "-m", "kernel", "run", str(folder / "kernel.toml")]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        self.port = port_in(folder / "log")

    def connect(self, *, takes: int = 0) -> socket.socket:
        """Connect; a client may have room for so many bytes only."""
        client = socket.socket()
        client.settimeout(20)
        if takes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes)
        try:
            client.connect(("127.0.0.1", self.port))
        except OSError:
            client.close()
            raise
        return client

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def megabytes(self) -> float:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def stop(self) -> tuple[int, float]:
        """Stop it; return its status and the seconds that it took."""
        began = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30), time.perf_counter() - began


def port_in(log: Path) -> int:
    """Return where a service says that it listens: a port that was free a moment ago may be another's by now."""
    for _ in range(600):
        if found := re.search(rb"listening address=https?://127[.]0[.]0[.]1:(\d+)", log.read_bytes()):
            return int(found[1])
        time.sleep(0.05)
    raise SystemExit(f"the service did not start: {log.read_text()}")


@contextlib.contextmanager
def serving() -> Generator[Service]:
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder))
        try:
            yield service
        finally:
            service.process.kill()
            service.process.wait()


class Good:
    """Clients that ask again and again, in threads; the odd ones on a new connection each time."""

    def __init__(self, service: Service, count: int) -> None:
        self.service = service
        self.is_over = False
        self.late: list[float] = []
        self.dropped: list[bytes] = []
        self.refused = 0
        self.threads = [threading.Thread(target=self._go, args=(number % 2 == 1,)) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def _go(self, anew: bool) -> None:  # noqa: FBT001  of a thread
        while not self.is_over:
            try:
                client = self.service.connect()
            except OSError:
                self.refused += not self.is_over
                return
            with client:
                while self._ask(client) and not (anew or self.is_over):
                    pass

    def _ask(self, client: socket.socket) -> bool:
        answer, was_in_time, began = b"", False, time.perf_counter()
        with contextlib.suppress(OSError):
            client.sendall(GET)
            was_in_time = not self.is_over
            while not answer.endswith(b"x" * SIZE) and (piece := client.recv(65536)):
                answer += piece
        is_whole = answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"x" * SIZE)
        if is_whole:
            self.late.append(time.perf_counter() - began)
        elif was_in_time:
            self.dropped.append(answer[:60] or b"nothing, after %d ms" % ((time.perf_counter() - began) * 1e3))
        return is_whole and b"connection: close" not in answer[:300]

    def p99(self) -> float:
        """Return the 99th percentile in milliseconds, and forget."""
        late, self.late = sorted(self.late), []
        return late[int(len(late) * 0.99)] * 1e3 if late else 0.0

    def end(self) -> None:
        self.is_over = True
        for thread in self.threads:
            thread.join()


@contextlib.contextmanager
def load(service: Service) -> Generator[None]:
    """Have `wrk` ask besides, on 16 connections; it does not tell what was dropped before a stop, and what after."""
    command = ["wrk", "-t1", "-c16", "-d5", f"http://127.0.0.1:{service.port}/"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def stop(options: argparse.Namespace) -> bool:
    answered = dropped = refused = wrong = 0
    slowest, besides = 0.0, load if shutil.which("wrk") else contextlib.nullcontext
    for number in range(options.times):
        with serving() as service, besides(service):
            good = Good(service, 16)
            time.sleep(random.Random(number).uniform(0.05, 0.6))
            good.is_over = True
            status, took = service.stop()
            good.end()
        answered, refused, wrong = answered + len(good.late), refused + good.refused, wrong + (status != 0)
        dropped, slowest = dropped + len(good.dropped), max(slowest, took)
        if good.dropped or good.refused:
            print(f"stop {number}: refused {good.refused}, dropped {good.dropped}", flush=True)
    print(f"{options.times} stops {'beside wrk' if besides is load else 'without wrk'}: {answered} answered,", end=" ")
    print(f"{dropped} dropped, {refused} refused too early,")
    print(f"{wrong} with another status than 0, the slowest in {slowest:.2f} s")
    return not (dropped or refused or wrong)


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


POST: Final = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nx"
SLOW: Final = {"a slow head": b"x", "a slow body": b"x"}
"""What those who are slow say every half second."""
FIELDS: Final = bytes((0x82, 0x86, 0x41, 1)) + b"a" + bytes((0x04, 8)) + b"/endless"
"""GET of /endless, in HPACK."""
CONTINUATION: Final = b"\0\0\0\x09\0\0\0\0\1"


def head(stream: int, flags: int) -> bytes:
    """Return a frame of HTTP/2 that asks for an answer without end."""
    return bytes((0, 0, len(FIELDS), 1, flags)) + stream.to_bytes(4, "big") + FIELDS


STREAMS: Final = b"".join(head(stream, 5) for stream in range(1, 200, 2))
RESETS: Final = b"".join(
    head(stream, 5) + b"\0\0\4\3\0" + stream.to_bytes(4, "big") + bytes((0, 0, 0, 8)) for stream in range(1, 2000, 2)
)
HOSTILE: Final[dict[str, tuple[int, Callable[[socket.socket], object]]]] = {
    "never read": (500, lambda client: client.sendall(GET.replace(b"/", b"/endless", 1))),
    "half a head": (50, lambda client: client.sendall(GET[:20])),
    "half a body": (50, lambda client: client.sendall(POST)),
    "a slow head": (50, lambda client: client.sendall(GET[:20])),
    "a slow body": (50, lambda client: client.sendall(POST)),
    "early data": (50, lambda client: client.sendall(UPGRADE + b"\r\nx")),
    "a broken handshake": (50, lambda client: client.sendall(UPGRADE + b"Sec-WebSocket-Version: 8\r\n\r\n")),
    "sent ahead": (20, lambda client: client.sendall(GET * 500)),
    "pings of HTTP/2": (10, lambda client: client.sendall(H2 + (b"\0\0\x08\6\0\0\0\0\0" + bytes(8)) * 2000)),
    "settings of HTTP/2": (10, lambda client: client.sendall(H2 + b"\0\0\0\4\0\0\0\0\0" * 3000)),
    "priorities of HTTP/2": (10, lambda client: client.sendall(H2 + b"\0\0\5\2\0\0\0\0\5\0\0\0\0\1" * 2000)),
    "heads without an end over HTTP/2": (10, lambda client: client.sendall(H2 + head(1, 0) + CONTINUATION * 2000)),
    "resets of HTTP/2": (10, lambda client: client.sendall(H2 + RESETS)),
    "streams of HTTP/2 that are not read": (10, lambda client: client.sendall(H2 + STREAMS)),
    "resets": (100, reset),
}


def attack(service: Service, seconds: float, count: Any) -> None:  # noqa: ANN401  a number that processes share
    """Be every hostile client at its limit, in a process of its own: whom the server cuts off comes again."""
    until, held = time.monotonic() + seconds, dict.fromkeys(HOSTILE, [socket.socket()][:0])
    while time.monotonic() < until:
        for name, (most, act) in HOSTILE.items():
            held[name] = [client for client in held[name] if not _is_cut(client)]
            for client in held[name] if name in SLOW else ():
                with contextlib.suppress(OSError):
                    client.sendall(SLOW[name])
            for _ in range(most - len(held[name])):
                with contextlib.suppress(OSError):
                    client = service.connect(takes=4096)
                    held[name] = [*held[name], client]
                    count.value += 1
                    client.settimeout(0.2)
                    act(client)
        time.sleep(0.5)


def _is_cut(client: socket.socket) -> bool:
    """Whether a client has been cut off; one that is told something reads it, unless it is there to read nothing."""
    try:
        return client.fileno() < 0 or client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def hostile(options: argparse.Namespace) -> bool:
    with serving() as service:
        good = Good(service, 8)
        time.sleep(max(2.0, options.seconds / 6))
        alone, descriptors, before = good.p99(), service.descriptors(), service.megabytes()
        count = multiprocessing.Value("i", 0)
        other = multiprocessing.Process(target=attack, args=(service, options.seconds, count))
        other.start()
        other.join()
        beside, meanwhile = good.p99(), service.megabytes()
        good.end()
        time.sleep(12)  # every deadline is over
        after, left = service.megabytes(), service.descriptors()
        with contextlib.closing(service.connect()) as client:
            client.sendall(GET)
            answers = client.recv(100).startswith(b"HTTP/1.1 200 ")
        status, took = service.stop()
    print(f"{count.value} hostile clients in {options.seconds:g} s; asked for: p99 2 times what it was, nothing leaks")
    print(f"p99 of the good ones {alone:.1f} ms, then {beside:.1f} ms ({beside / max(alone, 1e-3):.2f} times)")
    print(
        f"dropped {len(good.dropped)} {good.dropped[:3] or ''}, refused {good.refused}; answers afterwards: {answers}"
    )
    print(f"memory {before:.0f} MB, {meanwhile:.0f} MB meanwhile, {after:.0f} MB after")
    print(f"descriptors {descriptors} with the good ones, {left} after; stopped in {took:.2f} s with status {status}")
    return answers and not good.dropped and not good.refused and left < descriptors and status == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["stop", "hostile"])
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    raise SystemExit(not {"stop": stop, "hostile": hostile}[options.what](options))


if __name__ == "__main__":
    main()
