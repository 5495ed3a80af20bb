"""The connection as the thread has it: opened again when it is of no use any more, never on another file."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, final

import attrs

from kernel.errors import KernelError, StartupError, StorageError

from ._clock import Clock
from ._failure import as_storage_error, as_unknown, code_of, is_busy
from ._file import Identity, Opened, identity_of, open_existing
from ._guard import Guard
from ._reset_guard import ResetGuard
from ._shelves import Effects
from ._store import Store

_RETRY: Final = 1.0
"""Seconds after which a file that cannot be read is asked again."""
_INSTRUCTIONS: Final = 20_000
"""Of SQLite's machine, about a millisecond, after which it looks whether a statement has to end."""
LOG_LIMIT: Final = 256 * 1024 * 1024
"""Bytes of the log beyond which somebody must be keeping it from being written into the file."""


@final
@attrs.define(eq=False, repr=False)
class Access:
    """Begins and ends transactions. Used by one thread at a time."""

    path: Path
    _synchronous: str
    _busy_timeout: float
    _make_store: Callable[[sqlite3.Connection], Store]
    clock: Clock
    _connection: sqlite3.Connection | None = attrs.field(default=None, init=False)
    _identity: Identity | None = attrs.field(default=None, init=False)
    _store: Store | None = attrs.field(default=None, init=False)
    _holder: int | None = attrs.field(default=None, init=False)
    """Under which our claims are, while there is no connection."""
    _log: Path = attrs.field(init=False)
    _reset_guard: ResetGuard = attrs.field(init=False)
    guard: Guard = attrs.field(factory=Guard, init=False)
    is_unsure: bool = attrs.field(default=False, init=False)
    """Whether the last commit failed in a way that leaves open what is on the disk."""

    def __attrs_post_init__(self) -> None:
        self._reset_guard = ResetGuard(self.path)
        self._log = self.path.with_name(f"{self.path.name}-wal")

    def use(self, opened: Opened) -> None:
        """Work with a connection."""
        self._connection, self._identity = opened.connection, opened.identity
        self.guard.watch(opened.connection)
        self._store = self._make_store(opened.connection)
        self._store.reset_guard = self._reset_guard
        self._store.adopt(self._holder)

    def begin(self, is_stopping: Callable[[], bool]) -> Store:
        """Begin a transaction, on a new connection if need be.

        Raises:
            StorageError: if the file is gone, or another one stands in its place.
            sqlite3.Error: if the file takes nothing.
        """
        self.is_unsure = False
        if self._store is None or identity_of(self.path) != self._identity:
            self._reopen()
        assert self._store is not None
        patience = time.monotonic() + self._busy_timeout
        while True:
            try:
                self._store.begin()
            except sqlite3.OperationalError as error:
                self._store.rollback()
                if not is_busy(error) or is_stopping() or time.monotonic() >= patience:
                    raise
            else:
                return self._store

    @contextmanager
    def limited(self, seconds: float, is_stopping: Callable[[], bool]) -> Generator[None]:
        """Interrupt a statement that still runs when the time is over, or the file is to be closed."""
        connection, until = self._connection, time.monotonic() + seconds
        assert connection is not None
        connection.set_progress_handler(lambda: time.monotonic() >= until or is_stopping(), _INSTRUCTIONS)
        try:
            yield
        finally:
            with suppress(sqlite3.Error):  # it may have been closed meanwhile
                connection.set_progress_handler(None, 0)

    def commit(self) -> Effects:
        """End the transaction well.

        Raises:
            sqlite3.Error: if the file did not take it; see `is_unsure`.
        """
        assert self._store is not None
        self._store.prepare()
        try:
            return self._store.commit()
        except sqlite3.Error as error:
            self.is_unsure = code_of(error) == sqlite3.SQLITE_IOERR
            raise

    def rollback(self) -> None:
        """End the transaction, whatever state it is in."""
        if self._store is not None:
            with suppress(sqlite3.Error):  # it is undone when the connection is closed, at the latest
                self._store.rollback()

    def drop(self) -> None:
        """Close the connection; the next transaction opens another one."""
        if self._store is not None:
            # What is claimed is still ours, unless it cannot be known what is: then the lease ends by itself.
            self._holder = None if self.is_unsure else self._store.holder
        connection, self._connection, self._store = self._connection, None, None
        if connection is not None:
            self._close(connection)

    def _close(self, connection: sqlite3.Connection) -> None:
        """Close a connection; the last one of a file checkpoints."""
        try:
            with suppress(sqlite3.Error):
                self._reset_guard.take(_RETRY)
            with suppress(sqlite3.Error):
                connection.close()
        finally:
            self._reset_guard.close()

    def close(self) -> None:
        """Close the file; all of it is in one piece then."""
        self.empty_log()
        self.drop()

    def empty_log(self) -> None:
        """Write the log into the file, as far as that is possible; the space that it takes is free then."""
        if self._connection is not None:
            # What is in the log stays there if it cannot be, and is as good.
            with suppress(sqlite3.Error), self._reset_guard.held():
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def complaint(self) -> str:
        """Return what is wrong with a file that takes what is written; empty if nothing is."""
        try:
            size = self._log.stat().st_size
        except OSError:
            return ""  # there is none
        if size <= LOG_LIMIT:
            return ""
        return (
            f'"{self._log}" has grown to {size >> 20} MiB, since a program that reads the file keeps it from being '
            "written back: end that program, or its transaction"
        )

    def translate(self, error: Exception) -> Exception:
        """Return what to tell those who waited for a transaction that failed."""
        if isinstance(error, KernelError) or code_of(error) == 0:
            return error
        made = as_unknown(error, self.path) if self.is_unsure else as_storage_error(error, self.path)
        made.__cause__ = error
        return made

    def next_time(self) -> float:
        """Return when upkeep is due, in seconds since 1970."""
        if self._store is None:
            return math.inf  # whoever finds it broken tries again by itself
        with suppress(sqlite3.Error):
            return self._store.next_time()
        return self.clock.wall() + _RETRY

    def has_changed(self) -> bool:
        """Return whether another process has written."""
        if self._store is None:
            return False
        try:
            return self._store.has_changed()
        except sqlite3.Error:
            return True  # the operations that this brings about find out what is wrong

    def _reopen(self) -> None:
        """Open the file again. One that has another one's place is not ours: what we confirmed is not in it."""
        self.drop()
        found = identity_of(self.path)
        if self._identity is not None and found != self._identity:
            raise StorageError(f'"{self.path}" was {"removed" if found is None else "replaced"} while it was in use')
        try:
            self.use(open_existing(self.path, synchronous=self._synchronous))
        except StartupError as error:
            raise StorageError(str(error)) from error
