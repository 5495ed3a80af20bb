"""What the tests of this plugin share: a server, and drivers on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio
from kernel_s3 import ObjectStore, S3Config, S3Driver

from kernel import Event, Secret
from kernel.abc import Context
from kernel.testing import fake_context, free_port

SECRET: Final = "correct-horse-battery"
BUCKET: Final = "scans"
SCRIPT: Final = Path(__file__).parent / "peers" / "seaweed.py"
SOON: Final = 60.0

OpenStore = Callable[..., AbstractAsyncContextManager[ObjectStore]]


@attrs.define(eq=False)
class Server:
    """A SeaweedFS of its own."""

    folder: Path
    ports: list[int] = attrs.field(factory=lambda: [free_port() for _ in range(8)])
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    def start(self) -> None:
        uv = shutil.which("uv")
        if uv is None:
            pytest.skip("needs uv, which builds the environment of SeaweedFS: pip install uv")
        words = [uv, "run", "--quiet", "--script", str(SCRIPT), str(self.folder), *map(str, self.ports)]
        environ = {**os.environ, "S3_TEST_SECRET": SECRET}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, env=environ, start_new_session=True)
        trio.run(self._make_bucket)

    async def _make_bucket(self) -> None:
        until = time.monotonic() + SOON
        while True:
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "log").read_text()
            try:
                async with driver(self, check=False, attempts=1).open() as store:
                    if BUCKET not in [one["Name"] for one in (await store.client.list_buckets())["Buckets"]]:
                        await store.client.create_bucket(Bucket=BUCKET)
                    await store.put("ready", b"yes")
                    return
            except Exception:
                if time.monotonic() > until:
                    raise
            await trio.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait(10)
            self._process = None
            for port in self.ports:  # it has them there whatever it is told
                for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                    left.unlink()

    def connections(self) -> int:
        """How many this process has to it."""
        port = f":{self.ports[0]:04X}"
        inodes = {os.readlink(one.path) for one in os.scandir("/proc/self/fd") if os.path.islink(one.path)}
        lines = Path("/proc/self/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        return sum(f"socket:[{line.split()[9]}]" in inodes for line in lines if line.split()[2].endswith(port))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    opened = Server(tmp_path_factory.mktemp("s3"))
    try:
        opened.start()
        yield opened
    finally:
        opened.kill()


def driver(
    server: Server, events: list[Event] | None = None, context: Context | None = None, **config: Any
) -> S3Driver:
    settings = {
        "endpoint_url": server.url,
        "bucket": BUCKET,
        "addressing": "path",
        "access_key": "test",
        "secret_key": Secret(SECRET),
        **config,
    }
    return S3Driver(config=S3Config(**settings), context=context or fake_context("driver/archive", events=events))


@pytest.fixture
def open_store(server: Server) -> OpenStore:
    """Open a driver on the server of all tests; at its end no connection of it may be left."""

    @asynccontextmanager
    async def opened(events: list[Event] | None = None, **config: Any) -> AsyncGenerator[ObjectStore]:
        async with driver(server, events, **config).open() as store:
            yield store
        assert server.connections() == 0

    return opened
