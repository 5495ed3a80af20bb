"""The file: made whole or not at all, and opened only if it is ours and sound."""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
import struct
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, final

import attrs

from kernel.errors import StartupError

from ._schema import APPLICATION_ID, PREFIX, TABLES, VERSION

_MAGIC: Final = b"SQLite format 3\0"
_SMALL: Final = 16 * 1024 * 1024
"""Bytes up to which every page is checked when the file is opened: well under a second."""
_CACHE_KIB: Final = 16_384
_WAL_KEPT: Final = 64 * 1024 * 1024
"""Bytes that the log keeps on the disk after it grew."""
_STATEMENTS: Final = 512
_BUSY_SLICE: Final = 0.1
"""Seconds that SQLite itself waits for a lock; who waits longer asks again, and can be told to stop in between."""


@final
@attrs.frozen
class Identity:
    """Which file this is, whatever its name says later."""

    device: int
    inode: int


@final
@attrs.frozen(repr=False)
class Opened:
    """A connection and the file behind it."""

    connection: sqlite3.Connection
    identity: Identity


def create_or_open(path: Path, *, synchronous: str) -> Opened:
    """Open a file of this broker; make it, readable for its owner alone, if there is none.

    Raises:
        StartupError: if it is anything else than a sound file of this broker; it is left as it is.
    """
    if not path.parent.is_dir():
        raise StartupError(f'the folder of "{path}" does not exist: make it, or correct `path`')
    if not os.path.lexists(path):
        _create(path)
    return open_existing(path, synchronous=synchronous)


def open_existing(path: Path, *, synchronous: str) -> Opened:
    """Open a file that must be there.

    Raises:
        StartupError: as `create_or_open`, and if there is no file.
    """
    identity = _check_header(path)
    try:
        connection = _connect(path)
    except sqlite3.Error as error:
        raise StartupError(f'"{path}" cannot be opened: {error}') from error
    try:
        _configure(connection, synchronous)
        _check_content(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise StartupError(_why_not(path, error)) from error
    except StartupError:
        connection.close()
        raise
    return Opened(connection, identity)


def identity_of(path: Path) -> Identity | None:
    """Return which file stands at a path; None if there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return Identity(found.st_dev, found.st_ino)


def exposure_of(path: Path) -> str:
    """Return who may read or write a file besides its owner; empty if nobody may."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    words = [word for bits, word in ((0o022, "write"), (0o044, "read")) if mode & bits]
    if not words:
        return ""
    return (
        f'others may {" and ".join(words)} "{path}" (mode {mode & 0o777:03o}), and what is in its messages: chmod 600'
    )


def _create(path: Path) -> None:
    """Make the file beside its place and link it there: nobody ever sees half of it, and no file is replaced."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StartupError(f'"{path}" cannot be made: {error.strerror}') from error
    try:
        os.fchmod(handle, 0o600)  # whatever the umask took away
        _write_tables(draft)
        os.fsync(handle)
        with suppress(FileExistsError):  # another process was quicker: its file is as good
            os.link(draft, path)
    except (OSError, sqlite3.Error) as error:
        raise StartupError(f'"{path}" cannot be made: {error}') from error
    finally:
        os.close(handle)
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _write_tables(draft: Path) -> None:
    with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(f"BEGIN;{TABLES}COMMIT;")
        connection.execute("PRAGMA journal_mode = WAL")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_header(path: Path) -> Identity:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise StartupError(f'there is no file "{path}"') from None
    except OSError as error:
        if path.is_symlink():
            raise StartupError(f'"{path}" is a symbolic link: name the file itself') from error
        raise StartupError(f'"{path}" cannot be read: {error.strerror}') from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise StartupError(f'"{path}" is not a regular file')
        _check_bytes(os.read(handle, 100), path)
    finally:
        os.close(handle)
    return Identity(found.st_dev, found.st_ino)


def _check_bytes(header: bytes, path: Path) -> None:
    if len(header) < 100 or not header.startswith(_MAGIC):
        raise StartupError(
            f'"{path}" is not a database: it is left as it is; name another file, or restore it from a backup'
        )
    version, application = struct.unpack_from(">I4xI", header, 60)
    if application != APPLICATION_ID:
        raise StartupError(f'"{path}" is a database of another program: name a file of its own for the broker')
    if version > VERSION:
        raise StartupError(
            f'"{path}" has schema {version}, and this version of trio-kernel-sqlite knows {VERSION}: install a later one'
        )


def _connect(path: Path) -> sqlite3.Connection:
    # mode=rw: a file that vanished since the check is not made again.
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=_BUSY_SLICE,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_STATEMENTS,
    )


def _configure(connection: sqlite3.Connection, synchronous: str) -> None:
    for pragma in (
        f"synchronous = {synchronous}",
        f"cache_size = -{_CACHE_KIB}",
        f"journal_size_limit = {_WAL_KEPT}",
        "cell_size_check = ON",
        "temp_store = MEMORY",
        "trusted_schema = OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _check_content(connection: sqlite3.Connection, path: Path) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StartupError(f'"{path}" stands on a file system without shared memory: put it on a local disk')
    connection.execute(f"SELECT last FROM {PREFIX}meta").fetchone()
    if path.stat().st_size <= _SMALL:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StartupError(_damaged(path, verdict))


def _why_not(path: Path, error: sqlite3.DatabaseError) -> str:
    """Return why a file that is there cannot be used; it may be the files beside it that there is no space for."""
    if _means_damage(error):
        return _damaged(path, str(error))
    full = os.statvfs(path.parent).f_bavail == 0
    return f'there is no space left for "{path}": make room' if full else f'"{path}": {error}'


def _means_damage(error: sqlite3.DatabaseError) -> bool:
    return (error.sqlite_errorcode & 0xFF) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def _damaged(path: Path, what: str) -> str:
    return (
        f'"{path}" is damaged ({what.splitlines()[-1]}): it is left as it is; restore it from a backup, or save what '
        f'can be read with `sqlite3 "{path}" .recover` and start with another file'
    )
