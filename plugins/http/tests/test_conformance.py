"""The promises of `kernel.abc.Driver`, against a server of another process: in this one its connections are leaks."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from kernel.testing import check_driver

from .conftest import ask, driver

_SERVER = (sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--protocol", "HTTP/1.1")


@pytest.fixture
def url(tmp_path: Path) -> Generator[str]:
    (tmp_path / "x").touch()
    with subprocess.Popen(
        _SERVER, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"port (\d+)", server.stdout.readline())
            assert found
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            server.kill()


@pytest.mark.slow
async def test_it_keeps_the_promises_of_a_driver(url: str) -> None:
    await check_driver(lambda: driver(url, probe="/x"), use=ask)
