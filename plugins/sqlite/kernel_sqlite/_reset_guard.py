"""Keeps commits and checkpoints of several processes apart, where SQLite itself does not do so well enough.

SQLite from 3.7.0 up to 3.51.2 can lose or damage committed pages if one connection's checkpoint ends while another one
commits (sqlite.org/wal.html, the WAL-reset bug). There, whoever writes holds a lock on a file beside the database until
the commit, and the checkpoint that may come with it, are done; who checkpoints by itself holds it, too.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

import attrs

_FIXED: Final = (3, 51, 3)
_FIRST: Final = (3, 7, 0)
_SLICE: Final = 0.1
"""Seconds to wait for the lock before whoever asks may look whether it still wants it."""
_LOOK: Final = 0.001
_CHECKPOINT_PATIENCE: Final = 5.0
"""Seconds that a checkpoint of its own waits; the log stays as it is without it."""


def is_affected(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> bool:
    """Return whether a version of SQLite has the bug."""
    return _FIRST <= version < _FIXED


@final
@attrs.define(eq=False, repr=False)
class ResetGuard:
    """A lock that the system takes back when the process ends. For one connection; used by one thread at a time."""

    path: Path
    """Of the database."""
    is_needed: bool = attrs.field(factory=is_affected)
    _handle: int | None = attrs.field(default=None, init=False)
    is_held: bool = attrs.field(default=False, init=False)

    def take(self, patience: float = _SLICE) -> None:
        """Take the lock, unless it is held already or SQLite needs none.

        Raises:
            sqlite3.OperationalError: SQLITE_BUSY, if another one has it for longer than `patience` seconds; or if its
                file cannot be made.
        """
        if self.is_held or not self.is_needed:
            return
        until = time.monotonic() + patience
        while not self._try():
            if time.monotonic() >= until:
                raise _failure("another process writes", sqlite3.SQLITE_BUSY)
            time.sleep(_LOOK)
        self.is_held = True

    def release(self) -> None:
        """Let another one have it."""
        if self.is_held and self._handle is not None:
            fcntl.flock(self._handle, fcntl.LOCK_UN)
        self.is_held = False

    def close(self) -> None:
        """Release it, for good."""
        handle, self._handle = self._handle, None
        self.is_held = False
        if handle is not None:
            os.close(handle)

    @contextmanager
    def held(self) -> Generator[None]:
        """Hold it for the time of the block.

        Raises: as `take`.
        """
        was_held = self.is_held
        self.take(_CHECKPOINT_PATIENCE)
        try:
            yield
        finally:
            if not was_held:
                self.release()

    def _try(self) -> bool:
        try:
            if self._handle is None:
                beside = self.path.with_name(f"{self.path.name}-guard")
                self._handle = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise _failure(f"the lock beside it cannot be taken: {error.strerror}", sqlite3.SQLITE_CANTOPEN) from error
        return True


def _failure(text: str, code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error
