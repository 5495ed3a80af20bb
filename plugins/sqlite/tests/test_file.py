from __future__ import annotations

import os
import sqlite3
import stat
import struct
import threading
from pathlib import Path

import pytest
from kernel_sqlite._file import create_or_open, open_existing

from kernel.errors import StartupError


def create(path: Path) -> None:
    create_or_open(path, synchronous="full").connection.close()


def refusal(path: Path) -> str:
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StartupError) as raised:
        create_or_open(path, synchronous="full")
    assert (path.read_bytes() if path.is_file() else b"") == before, "it was changed"
    return str(raised.value)


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_a_file_is_readable_for_its_owner_alone(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        create(path)
        opened = create_or_open(path, synchronous="full")
        opened.connection.execute("CREATE TABLE mine (x)")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        opened.connection.close()
    finally:
        os.umask(before)

    assert modes == {path.name: 0o600, f"{path.name}-wal": 0o600, f"{path.name}-shm": 0o600}


def test_nothing_is_left_beside_a_new_file(path: Path) -> None:
    create(path)

    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_many_may_create_it_at_once(path: Path) -> None:
    errors: list[Exception] = []

    def attempt() -> None:
        try:
            create(path)
        except StartupError as error:
            errors.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"x" * 5000], ids=["empty", "short", "text"])
def test_what_is_no_database_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    assert "is not a database: it is left as it is" in refusal(path)


def test_a_database_of_another_program_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()

    assert "another program" in refusal(path)


def test_a_file_of_a_later_version_is_refused(path: Path) -> None:
    create(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()

    assert "schema 99" in refusal(path)


def test_a_symbolic_link_is_refused(path: Path) -> None:
    real = path.with_name("real.db")
    create(real)
    path.symlink_to(real)

    assert "symbolic link" in refusal(path)


def test_a_link_to_nothing_is_refused_and_not_followed(path: Path) -> None:
    path.symlink_to(path.with_name("nothing.db"))

    assert "symbolic link" in refusal(path)
    assert not path.with_name("nothing.db").exists()


def test_a_folder_and_a_pipe_are_refused(path: Path) -> None:
    path.mkdir()
    assert "not a regular file" in refusal(path)

    pipe = path.with_name("pipe")
    os.mkfifo(pipe)
    assert "not a regular file" in refusal(pipe)


def test_a_folder_that_does_not_exist_is_refused(path: Path) -> None:
    assert "folder" in refusal(path / "x.db")


def test_a_file_that_must_exist_is_not_made(path: Path) -> None:
    with pytest.raises(StartupError, match="there is no file"):
        open_existing(path, synchronous="full")
    assert not path.exists()


def test_damage_is_refused_with_a_hint(path: Path) -> None:
    create(path)
    connection = sqlite3.connect(path)
    connection.executemany(
        "INSERT INTO kernel_content VALUES (?, '', '', ?, '', '', '', '')", [(n, b"x" * 500) for n in range(500)]
    )
    connection.commit()
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'kernel_content'").fetchone()
    connection.close()
    data = bytearray(path.read_bytes())
    struct.pack_into(">H", data, (page - 1) * 4096 + 3, 4000)  # cells of a page
    path.write_bytes(data)

    assert "is damaged" in refusal(path)


def test_a_file_that_was_cut_off_is_refused(path: Path) -> None:
    create(path)
    os.truncate(path, path.stat().st_size // 2)

    assert "is damaged" in refusal(path)
