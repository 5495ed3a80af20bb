"""What the tests of this plugin share: a server of their own, on free ports of loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import coredis
import pytest
import trustme
from kernel_redis import RedisConfig, RedisDriver

from kernel import Event, Secret
from kernel.testing import fake_context

PASSWORD: Final = "correct horse"
OpenRedis = Callable[..., AbstractAsyncContextManager["coredis.Redis[str]"]]


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

    def clients(self) -> int:
        """How many connections of the driver there are."""
        with socket.create_connection(("127.0.0.1", self.port)) as asking, asking.makefile("rb") as answers:
            asking.sendall(f'AUTH "{PASSWORD}"\r\nCLIENT LIST\r\n'.encode())
            assert answers.readline() == b"+OK\r\n"
            listed = answers.read(int(answers.readline()[1:]))
        return listed.count(b"name=test ")


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        for taken in (one, two):
            taken.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs Redis: apt-get install redis-server")
    folder = tmp_path_factory.mktemp("redis")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    opened = Server(program, folder, *free_ports())
    try:
        opened.start()
        yield opened
    finally:
        opened.stop()


def driver(server: Server, events: list[Event] | None = None, **config: Any) -> RedisDriver:
    settings = {"dsn": server.dsn, "password": Secret(PASSWORD), **config}
    return RedisDriver(config=RedisConfig(**settings), context=fake_context("driver/redis", events=events))


@pytest.fixture
def open_redis(server: Server) -> OpenRedis:
    @asynccontextmanager
    async def opened(events: list[Event] | None = None, **config: Any) -> AsyncGenerator[Any]:
        async with driver(server, events, **config).open() as client:
            yield client

    return opened
