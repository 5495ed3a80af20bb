"""Who listens at an address already is named, whoever it is and however the address is written."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernel.abc import Endpoint, why_not_listening

IN_USE = OSError(errno.EADDRINUSE, "Address already in use")
_LISTEN = """
import socket, sys
family, address = (socket.AF_UNIX, sys.argv[1]) if "/" in sys.argv[1] else (socket.AF_INET, (sys.argv[1], 0))
taken = socket.socket(family)
taken.bind(address)
taken.listen()
print(taken.getsockname()[1] if "/" not in sys.argv[1] else 0, flush=True)
sys.stdin.read()
"""


@contextmanager
def another(where: str) -> Iterator[tuple[int, int]]:
    """Have another process listen; yield its id and its port."""
    command = [sys.executable, "-c", _LISTEN, where]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.communicate("")


@pytest.mark.parametrize("asked", ["127.0.0.1", "localhost", "0.0.0.0", ""])
@pytest.mark.parametrize("held", ["127.0.0.1", "0.0.0.0"])
def test_another_process_is_named_by_its_port(held: str, asked: str) -> None:
    with another(held) as (pid, port):
        text = why_not_listening(IN_USE, Endpoint(host=asked, port=port))

    assert text.startswith(f"address already in use (pid {pid}, ")
    assert text.endswith("): stop who listens there, or bind another port")


def test_another_process_is_named_by_its_path(tmp_path: Path) -> None:
    path = str(tmp_path / "taken")
    with another(path) as (pid, _):
        text = why_not_listening(IN_USE, Endpoint(path=path))

    assert text.startswith(f"address already in use (pid {pid}, ")
    assert text.endswith("): stop who listens there, or bind another path")


def test_the_process_itself_is_told_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = why_not_listening(IN_USE, Endpoint(host="127.0.0.1", port=taken.getsockname()[1]))

    assert f"(pid {os.getpid()}, " in text
    assert ", this process itself): " in text


def test_whom_nobody_can_see_is_not_named() -> None:
    text = why_not_listening(IN_USE, Endpoint(host="203.0.113.1", port=1))

    assert text == "address already in use: stop who listens there, or bind another port"


@pytest.mark.parametrize(
    ("number", "port", "text"),
    [
        (errno.EACCES, 80, "permission denied: ports below 1024 are privileged, bind another"),
        (errno.EACCES, 8080, "permission denied"),
        (errno.EADDRNOTAVAIL, 80, 'this machine has no such address: bind one of its own, or "0.0.0.0" for all'),
        (errno.ENOBUFS, 80, "No buffer space available"),
    ],
)
def test_other_reasons_say_what_to_do(number: int, port: int, text: str) -> None:
    error = OSError(number, os.strerror(number))

    assert why_not_listening(error, Endpoint(host="127.0.0.1", port=port)) == text
