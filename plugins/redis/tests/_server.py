"""A Redis of its own: on free ports of loopback, in a folder that goes away with it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import trustme

from kernel.testing import free_port

PASSWORD: Final = "correct-horse"


def program() -> str | None:
    """Return where redis-server is; None if Redis is not installed."""
    return shutil.which("redis-server")


@attrs.define(eq=False)
class Server:
    """One server."""

    program: str
    folder: Path
    port: int
    tls_port: int
    _process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = {
            "port": self.port,
            "tls-port": self.tls_port,
            "bind": "127.0.0.1",
            "requirepass": PASSWORD,
            "save": "",
            "dir": self.folder,
            "tls-cert-file": self.folder / "server.pem",
            "tls-key-file": self.folder / "server.pem",
            "tls-ca-cert-file": self.folder / "ca.pem",
            "tls-auth-clients": "no",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen([self.program, *words], stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while not self.answers():
            assert self._process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    @contextmanager
    def hanging(self) -> Generator[None]:
        """Have it neither answer nor close anything while inside."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def clients(self) -> int:
        """How many connections of the driver there are."""
        with socket.create_connection(("127.0.0.1", self.port)) as asking, asking.makefile("rb") as answers:
            asking.sendall(f'AUTH "{PASSWORD}"\r\nCLIENT LIST\r\n'.encode())
            assert answers.readline() == b"+OK\r\n"
            listed = answers.read(int(answers.readline()[1:]))
        return listed.count(b"name=test ")


@contextmanager
def open_server(folder: Path, found: str) -> Generator[Server]:
    """Run a server while inside."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    server = Server(found, folder, free_port(), free_port())
    try:
        server.start()
        yield server
    finally:
        server.stop()
