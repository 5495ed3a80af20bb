"""What the tests of this plugin share: an emulator of MongoDB, and services with the driver on it."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import subprocess
import time
import warnings
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from kernel_mongo import Mongo

from kernel.testing import OpenKernel, free_port

SCRIPT: Final = Path(__file__).parent / "peers" / "nx.py"
SOON: Final = 60.0

OpenMongo = Callable[..., AbstractAsyncContextManager[Mongo]]


@attrs.define(eq=False)
class Server:
    """An emulator of its own."""

    folder: Path
    port: int = attrs.field(factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}"

    def start(self) -> None:
        uv = shutil.which("uv")
        if uv is None:
            pytest.skip("needs uv, which builds the environment of the emulator: pip install uv")
        words = [uv, "run", "--quiet", "--script", str(SCRIPT), str(self.folder), str(self.port)]
        until = time.monotonic() + SOON
        while not self.answers():
            assert time.monotonic() < until, (self.folder / "out").read_text()
            if self._process is None or self._process.poll() is not None:  # its old port may still be taken
                with (self.folder / "out").open("ab") as out:
                    self._process = subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True)
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def connections(self) -> int:
        """How many this process has to it."""
        port = f":{self.port:04X}"
        inodes = {os.readlink(one.path) for one in os.scandir("/proc/self/fd") if os.path.islink(one.path)}
        lines = Path("/proc/self/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        return sum(f"socket:[{line.split()[9]}]" in inodes for line in lines if line.split()[2].endswith(port))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    opened = Server(tmp_path_factory.mktemp("mongo"))
    try:
        opened.start()
        yield opened
    finally:
        opened.kill()


def manifest(server: Server, **table: Any) -> dict[str, Any]:
    settings = {"plugin": "mongo", "driver": "aio", "dsn": server.dsn, "database": "test", **table}
    return {
        "kernel": {"name": "test"},
        "drivers": {"aio": {"plugin": "asyncio"}, "mongo": settings},
        "workers": {"w": {"use": "trio:sleep_forever"}},
    }


@pytest.fixture
def open_mongo(server: Server, open_kernel: OpenKernel) -> OpenMongo:
    """Open a service with the driver; at its end no connection of it may be left."""

    @asynccontextmanager
    async def opened(**table: Any) -> AsyncGenerator[Mongo]:
        async with open_kernel(manifest(server, **table)) as service:
            yield service.resource("driver/mongo")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()  # a connection whose making was cancelled is pymongo's garbage
        assert server.connections() == 0

    return opened
