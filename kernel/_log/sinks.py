"""Where the lines of a log go: standard error, or a file that is begun anew by time or by size.

A sink raises what goes wrong; `log` sees to it that nobody notices who logs.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO, cast, final

import attrs
from typing_extensions import override

from .._core.policies import LogFilePolicy

_MODE: Final = 0o640
"""Of a file, before the umask: what a service says is not for everybody."""
_HOW: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not make anybody wait
_STAMPS: Final = {"hourly": "%Y-%m-%d_%H", "daily": "%Y-%m-%d", "never": "%Y-%m-%d_%H-%M-%S"}


class Sink(ABC):
    """Takes lines."""

    __slots__ = ()

    @abstractmethod
    def write(self, text: str) -> None:
        """Take whole lines. The caller sees to it that threads do so one after the other.

        Raises:
            OSError: if it cannot; nothing, or the beginning of the text, was taken.
        """

    def last_words(self, text: str) -> None:
        """Take the last lines of a process whose threads may hold any lock. Raises as `write` does."""
        self.write(text)


@final
@attrs.define(eq=False, repr=False)
class Stream(Sink):
    """A stream; standard error, as it is at each line, if none is given."""

    stream: TextIO | None = None

    @override
    def write(self, text: str) -> None:
        stream = self.stream or cast("TextIO | None", sys.stderr)  # which is None if it was closed before the start
        if stream is not None:
            stream.write(text)  # in one piece: other programs write there too
            stream.flush()

    @override
    def last_words(self, text: str) -> None:
        os.write(2, text.encode(errors="backslashreplace"))  # not by the stream: whoever hangs may hold its lock


@final
@attrs.define(eq=False, repr=False)
class RotatingFile(Sink):
    """A file that is renamed, and begun anew, when its hour or day is over or it has its size.

    `shop.log` becomes `shop.log.2026-11-29_03`; a name that is taken gets `.000001` and so on. So names in order are
    files in order, none is renamed twice, and the oldest beyond `keep` are deleted. Hours and days are those of UTC.

    A file that is deleted or moved from outside is made anew, with its folder, at the next line.
    """

    path: Path
    policy: LogFilePolicy
    now: Callable[[], float] = time.time
    """Seconds since 1970: files are called by the time of the day."""
    _file: int = attrs.field(default=-1, init=False)
    _stamp: str = attrs.field(default="", init=False)
    """Of the lines that are in the file."""
    _size: int = attrs.field(default=0, init=False)
    _torn: bool = attrs.field(default=False, init=False)
    """Whether its last line is the beginning of one."""
    _is_regular: bool = attrs.field(default=False, init=False)
    """Whether it is no device, which must keep its name."""

    @override
    def write(self, text: str) -> None:
        data, now = text.encode(errors="backslashreplace"), self._stamp_of(self.now())
        if not self._is_in_place():
            self._open()
        if self._size and self._is_regular and self._is_full(now, len(data)):
            self._rotate()
        self._stamp = now
        self._append(data)

    @override
    def last_words(self, text: str) -> None:
        with suppress(OSError):
            self._append(text.encode(errors="backslashreplace"))
        Stream().last_words(text)

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _stamp_of(self, seconds: float) -> str:
        return datetime.fromtimestamp(seconds, UTC).strftime(_STAMPS[self.policy.rotate])

    def _is_full(self, now: str, more: int) -> bool:
        is_over = self.policy.rotate != "never" and now > self._stamp  # not when the clock is set back
        return is_over or 0 < self.policy.max_bytes < self._size + more

    def _is_in_place(self) -> bool:
        """Whether the file is open, and what its path leads to."""
        if self._file < 0:
            return False
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _open(self) -> None:
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, _HOW, _MODE)
        found = os.fstat(self._file)
        self._is_regular = stat.S_ISREG(found.st_mode)
        self._size, self._stamp, self._torn = found.st_size, self._stamp_of(found.st_mtime), False

    def _append(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        while data:
            taken = os.write(self._file, data)
            self._size += taken
            self._torn = data[taken - 1 : taken] != b"\n"
            data = data[taken:]

    def _rotate(self) -> None:
        """Put the file aside. If it cannot be renamed, it goes on; else no line could be written."""
        try:
            self.path.rename(self._free_name())
        except OSError:
            return
        self._open()
        self._delete_old()

    def _free_name(self) -> Path:
        """Return a name that comes after all of its time: one that was deleted is not used again."""
        stamp = self._stamp if self.policy.rotate != "never" else self._stamp_of(self.now())
        taken = sorted(self.path.parent.glob(f"{_literally(self.path.name)}.{stamp}*"))
        if not taken:
            return self.path.with_name(f"{self.path.name}.{stamp}")
        number = taken[-1].name.removeprefix(f"{self.path.name}.{stamp}").lstrip(".").partition(".")[0]
        return self.path.with_name(f"{self.path.name}.{stamp}.{int(number if number.isdecimal() else 0) + 1:06}")

    def _delete_old(self) -> None:
        aside = sorted(self.path.parent.glob(f"{_literally(self.path.name)}.[0-9]*-[0-9]*-[0-9]*"))
        for old in aside[: max(0, len(aside) - self.policy.keep)]:
            try:
                old.unlink()
            except OSError:
                continue  # somebody else has, or it is tried again at the next rotation


def _literally(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
