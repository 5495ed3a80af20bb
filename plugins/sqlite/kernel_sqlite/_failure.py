"""What goes wrong with a file, in the words of the kernel."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from kernel.errors import SendError, StorageError, StorageFullError, UnknownOutcomeError

_REOPEN: Final = frozenset({
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CANTOPEN,
})
_LARGE_LOG: Final = 256 * 1024
"""Bytes of a log that is worth a word where there is no space."""
_HINTS: Final = {
    sqlite3.SQLITE_BUSY: "another process has kept it locked for longer than `busy_timeout`",
    sqlite3.SQLITE_READONLY: "it, or its file system, may only be read",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a backup",
    sqlite3.SQLITE_NOTADB: "it is damaged; restore it from a backup",
}


def code_of(error: BaseException) -> int:
    """Return SQLite's primary result code; 0 if it is no error of SQLite."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF if isinstance(error, sqlite3.Error) else 0


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether another process writes."""
    return code_of(error) == sqlite3.SQLITE_BUSY


def is_interrupted(error: BaseException) -> bool:
    """Return whether a statement was ended because it took too long."""
    return code_of(error) == sqlite3.SQLITE_INTERRUPT


def is_full(error: BaseException) -> bool:
    """Return whether there was no space."""
    return code_of(error) == sqlite3.SQLITE_FULL


def breaks_connection(error: BaseException) -> bool:
    """Return whether nothing that the connection believes can be trusted any more."""
    return code_of(error) in _REOPEN


def as_unknown(error: BaseException, path: Path) -> SendError:
    """Translate the failure of a commit: whether it is on the disk cannot be known."""
    if code_of(error) != sqlite3.SQLITE_IOERR:
        return as_storage_error(error, path)
    return UnknownOutcomeError(f'"{path}" could not be written to the disk for certain: {error}')


def as_storage_error(error: BaseException, path: Path) -> SendError:
    """Translate a failure after which nothing was stored."""
    code = code_of(error)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path)):
        return StorageFullError(f'there is no space left for "{path}": nothing was stored; make room{_hint(path)}')
    return StorageError(f'"{path}" took nothing: {_HINTS.get(code, str(error))}')


def _hint(path: Path) -> str:
    """Return what the log takes, where that is worth a word: to write it back into the file takes a little room."""
    with suppress(OSError):
        log = path.with_name(f"{path.name}-wal")
        size = log.stat().st_size
        if size >= _LARGE_LOG:
            return f', of which a little will do: "{log.name}" ({size >> 10} KiB) is written back then'
    return ""


def _is_full(path: Path) -> bool:
    try:
        return os.statvfs(path).f_bavail == 0
    except OSError:
        return False
