"""The thread that answers: what clients may do to it, and what they may not."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from kernel_health import HealthConfig, HealthDispatcher
from kernel_health._notify import Notifier
from kernel_health._server import HEAD_MAX, ProbeServer
from kernel_health._truth import Answer

from kernel import KernelReady, Snapshot, StopRequested
from kernel.errors import PlanError, StartupError
from kernel.testing import fake_context, open_kernel

PATIENCE = 10.0
LARGE = Answer(HTTPStatus.OK, b"x" * 5_000_000)


def respond(method: str, path: str) -> Answer:
    if path == "/broken":
        raise RuntimeError("broken")
    return LARGE if path == "/large" else Answer(HTTPStatus.OK, f"{method} {path}".encode())


@contextmanager
def serving(*, max_connections: int = 3, timeout: float = PATIENCE) -> Iterator[tuple[str, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = ProbeServer([listener], respond, max_connections, timeout, lambda: 0.05)
    server.start()
    try:
        yield listener.getsockname()
    finally:
        server.stop()
        listener.close()


def ask(address: Any, request: bytes) -> bytes:
    """Send something, and return all that comes until the other side closes."""
    with socket.create_connection(address, PATIENCE) as sock:
        sock.sendall(request)
        return read(sock)


def read(sock: socket.socket) -> bytes:
    received = b""
    try:
        while data := sock.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def test_an_answer_is_whole_and_closes() -> None:
    with serving() as address:
        answer = ask(address, b"GET /live?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")

    head, body = answer.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (body, b"connection: close" in head, b"content-length: 9" in head) == (b"GET /live", True, True)


def test_a_head_says_what_there_is_and_has_nothing_of_it() -> None:
    with serving() as address:
        head = ask(address, b"HEAD /large HTTP/1.1\r\n\r\n")

    assert b"content-length: 5000000\r\n" in head
    assert head.endswith(b"\r\n\r\n")


def test_a_large_answer_reaches_a_slow_reader() -> None:
    with serving() as address:
        assert len(ask(address, b"GET /large HTTP/1.1\r\n\r\n").split(b"\r\n\r\n")[1]) == 5_000_000


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"GET\r\n\r\n", b"400"),
        (b"GET http://a/live HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /live SPDY/9\r\n\r\n", b"400"),
        (b"GET /live HTTP/1.1\r\nx: " + b"a" * (HEAD_MAX + 1), b"431"),
        (b"GET /broken HTTP/1.1\r\n\r\n", b"500"),
    ],
    ids=["tls", "no words", "no path", "no http", "too long", "broken"],
)
def test_what_makes_no_sense_is_refused(request_: bytes, status: bytes) -> None:
    with serving() as address:
        assert ask(address, request_)[9:12] in {status, b""}  # a reset may overtake what was said
        assert b"200 OK" in ask(address, b"GET /live HTTP/1.1\r\n\r\n")


def test_who_is_slow_or_never_reads_is_closed_in_time() -> None:
    with (
        serving(timeout=0.2) as address,
        socket.create_connection(address, PATIENCE) as silent,
        socket.create_connection(address, PATIENCE) as deaf,
    ):
        deaf.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        silent.sendall(b"GET /li")

        assert read(silent) == b""
        assert len(read(deaf)) < 5_000_000


@pytest.mark.parametrize("parts", [1, 2], ids=["whole", "in two parts"])
def test_who_has_come_by_the_end_is_answered(parts: int) -> None:
    busy, goes_on = threading.Event(), threading.Event()

    def respond_late(method: str, path: str) -> Answer:
        busy.set()
        assert goes_on.wait(PATIENCE)
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, path.encode())

    request = b"GET /ready HTTP/1.1\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        server = ProbeServer([listener], respond_late, 9, PATIENCE, lambda: 0.05)
        server.start()
        clients = [stack.enter_context(socket.create_connection(listener.getsockname(), PATIENCE)) for _ in range(5)]
        for client in clients:
            client.sendall(request[: len(request) // parts])
        clients[0].sendall(request[len(request) // parts :])
        assert busy.wait(PATIENCE)
        ending = threading.Thread(target=server.stop)
        ending.start()
        for client in clients[1:]:
            client.sendall(request[len(request) // parts :])
        goes_on.set()
        answers = [read_all(client) for client in clients]
        ending.join()

    assert [answer[9:12] for answer in answers] == [b"503"] * 5


def test_who_says_nothing_does_not_hold_up_the_end() -> None:
    with serving() as address, socket.create_connection(address, PATIENCE):
        began = time.monotonic()

    assert time.monotonic() - began < PATIENCE / 2


def read_all(sock: socket.socket) -> bytes:
    """As `read`; a connection that is reset is an error."""
    received = b""
    while data := sock.recv(65536):
        received += data
    return received


def test_who_asks_nothing_keeps_no_probe_out() -> None:
    """Else a few idle connections would have a kubelet kill a healthy service. The oldest are closed for the new."""
    with serving() as address, ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(3)]
        answers = list[bytes]()
        for _ in range(20):
            held.append(stack.enter_context(socket.create_connection(address, PATIENCE)))
            held[-1].sendall(b"GET /li")
            answers.append(ask(address, b"GET /live HTTP/1.1\r\n\r\n"))
        closed = [read(one) for one in held[:-3]]

    assert [answer[9:12] for answer in answers] == [b"200"] * 20
    assert closed == [b""] * 20


def test_the_thread_ends() -> None:
    with serving() as address, socket.create_connection(address):
        pass

    assert not [one for one in threading.enumerate() if one.name == "kernel-health"]


async def test_an_address_in_use_is_an_error_of_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = HealthConfig(bind=f"127.0.0.1:{taken.getsockname()[1]}")

        with pytest.raises(StartupError, match=rf"cannot listen at .*: address already in use \(pid {os.getpid()}, "):
            async with HealthDispatcher(config=config, context=fake_context("dispatcher/health")).open():
                pass


async def test_a_unix_socket_is_for_its_user_and_goes_with_the_service(tmp_path: Path) -> None:
    path = tmp_path / "health"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    config = HealthConfig(bind=f"unix:{path}")
    async with HealthDispatcher(config=config, context=fake_context("dispatcher/health")).open():
        mode = path.stat().st_mode & 0o777

    assert (mode, path.exists()) == (0o600, False)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"bind": "0.0.0.0:8081"}, "insecure = true"),
        ({"bind": "nonsense"}, "host:port"),
        ({"stall": 0}, "stall"),
    ],
)
async def test_what_is_wrong_with_a_table_is_found_before_the_start(table: dict[str, Any], problem: str) -> None:
    manifest = {"kernel": {"name": "test"}, "dispatchers": {"health": {"plugin": "health", **table}}}

    with pytest.raises(PlanError, match=problem):
        async with open_kernel(manifest):
            pass


async def test_it_takes_no_workers() -> None:
    manifest = {
        "kernel": {"name": "test"},
        "dispatchers": {"health": {"plugin": "health"}},
        "workers": {"w": {"use": f"{__name__}:worker", "dispatcher": "health"}},
    }

    with pytest.raises(PlanError, match="takes no workers"):
        async with open_kernel(manifest):
            pass


async def worker(message: object) -> None: ...


def test_what_systemd_must_know_arrives_when_it_has_room_again(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as note:
        note.bind(str(tmp_path / "notify"))
        note.settimeout(PATIENCE)
        notifier = Notifier.of({"NOTIFY_SOCKET": str(tmp_path / "notify")}, HealthConfig())
        assert notifier is not None
        for _ in range(2000):
            notifier.tell("STATUS=full")
        notifier.hear(KernelReady(component="kernel", seconds=1.0))
        while note.recv(65536) and notifier.tick(Snapshot(service="test")) < 1:
            pass
        lines = [note.recv(65536).decode()]
        while "READY=1" not in lines[-1]:
            lines.append(note.recv(65536).decode())
        notifier.close()

    assert lines[-1].startswith("READY=1\n")


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "vsock:2:3"}])
def test_without_a_socket_there_is_nobody_to_tell(environ: dict[str, str]) -> None:
    assert Notifier.of(environ, HealthConfig()) is None


def test_a_socket_that_nobody_listens_at_holds_up_nothing(tmp_path: Path) -> None:
    notifier = Notifier.of({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1"}, HealthConfig())
    assert notifier is not None

    notifier.hear(StopRequested(component="kernel", reason="SIGTERM"))
    notifier.tick(Snapshot(service="test"))
    notifier.close()
