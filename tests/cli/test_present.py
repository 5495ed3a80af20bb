"""`kernel check` looks whether the files are there that a component needs when it opens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ._service import kernel

MANIFEST = """
[kernel]
name = "x"
[dispatchers.web]
bind = "127.0.0.1:8443"
access_log = "json"
access_log_file = "FOLDER/access.log"
[dispatchers.web.tls]
cert = "tls.crt"
key = "tls.key"
ca = "ca.pem"
[dispatchers.web.tls.names]
"shop.example" = { cert = "shop.crt", key = "shop.key" }
[drivers.db]
plugin = "http"
base_url = "https://127.0.0.1"
ca = "remote.pem"
[workers.app]
use = "present_app:app"
dispatcher = "web"
[workers.watch]
use = "present_app:watch"
depends = ["db"]
"""
CODE = "async def app(scope, receive, send): ...\nasync def watch(): ...\n"
FILES = ("tls.crt", "tls.key", "ca.pem", "shop.crt", "shop.key", "remote.pem")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kernel.toml").write_text(MANIFEST.replace("FOLDER", str(tmp_path / "logs")))
    (tmp_path / "present_app.py").write_text(CODE)
    (tmp_path / "logs").mkdir()
    for name in FILES:
        (tmp_path / name).write_text("x")
    return tmp_path


def line_of(name: str) -> int:
    return next(number for number, line in enumerate(MANIFEST.splitlines(), 1) if name in line)


def checked(folder: Path) -> tuple[int, list[str]]:
    """Return the status of `kernel check`, and what it says is wrong."""
    done = kernel("check", str(folder / "kernel.toml"))
    return done.returncode, [line for line in done.stderr.splitlines() if "still reading" not in line]


@pytest.mark.slow
def test_files_that_are_there_are_not_read(folder: Path) -> None:
    """Nothing is opened: what they hold is told by the start."""
    assert checked(folder) == (0, [])


@pytest.mark.slow
def test_every_file_that_is_missing_is_told_with_its_line(folder: Path) -> None:
    for name in FILES:
        (folder / name).unlink()
    (folder / "logs").rmdir()
    status, told = checked(folder)

    assert status == 2
    assert [line.split(": ")[0].rpartition(":")[2] for line in told] == [
        str(line_of(name)) for name in ("access_log_file", "cert = ", "key = ", "ca = ", "shop", "shop", "remote")
    ]
    assert told[1].endswith('dispatcher/web needs the file "tls.crt": no such file or directory')
    assert told[0].endswith(f'access.log": there is no folder "{folder}/logs"')


@pytest.mark.slow
def test_what_is_no_file_is_told_as_such(folder: Path) -> None:
    for name in ("tls.crt", "tls.key"):
        (folder / name).unlink()
    (folder / "tls.crt").mkdir()
    os.mkfifo(folder / "tls.key")
    (folder / "logs" / "access.log").mkdir()
    _, told = checked(folder)

    assert [line.rpartition(": ")[2] for line in told] == ["is a directory", "is a directory", "is no regular file"]
