"""A file, or standard output, that whole lines are added to, whatever befalls it. It blocks, and is for a thread."""

from __future__ import annotations

import os
import select
import stat
import sys
from pathlib import Path
from typing import Final, final

import attrs

_HOW: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
"""A pipe that nobody reads must not make anybody wait for it to be opened."""
_MODE: Final = 0o640
_LINE_END: Final = b"\n"


@final
@attrs.define(eq=False, repr=False)
class LinesFile:
    """What lines are added to. A file that is deleted or renamed is made anew before the next ones."""

    path: Path | None
    """None is standard output."""
    _fd: int = attrs.field(default=-1, init=False)
    _is_torn: bool = attrs.field(default=False, init=False)
    """Whether its last line is the beginning of one, as far as is known."""
    _is_sure: bool = attrs.field(default=False, init=False)
    """Whether that is so: others may write to it, or cut it short, and have failed as well."""

    @property
    def shown(self) -> str:
        """What it is called."""
        return "standard output" if self.path is None else str(self.path)

    def open(self) -> None:
        """Open what its path leads to.

        Raises:
            OSError: if that cannot be opened. What was open before is still.
        """
        if self.path is None:
            self._fd = sys.stdout.fileno()
            return
        fd = os.open(self.path, _HOW, _MODE)
        os.set_blocking(fd, True)
        self.close()
        self._fd, self._is_torn, self._is_sure = fd, False, False

    def close(self) -> None:
        """Close it, if it is a file. May be called again."""
        if self._fd >= 0 and self.path is not None:
            os.close(self._fd)
        self._fd = -1

    def write(self, lines: bytes) -> tuple[int, str]:
        """Add whole lines. Never in two threads at a time; raises nothing.

        Returns:
            How many were not written, or not as a whole, and why.
        """
        try:
            self._prepare()
            while lines:
                lines = self._add(lines)
        except OSError as error:
            self._is_sure = False
            return lines.count(_LINE_END), (error.strerror or str(error)).lower()
        return 0, ""

    def _prepare(self) -> None:
        """See that the next line goes to the right file, and begins where a line may."""
        if self.path is not None and not self._is_in_place(self.path):
            self.open()
        if not self._is_sure:
            self._is_torn, self._is_sure = self._ends_in_half_a_line(), True
        if self._is_torn:
            self._add(_LINE_END)

    def _is_in_place(self, path: Path) -> bool:
        try:
            return os.path.samestat(path.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def _ends_in_half_a_line(self) -> bool:
        """Return whether its last line has no end; where it cannot be read, what is known of what was written."""
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode):
            return self._is_torn
        try:
            fd = os.open(f"/dev/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return self._is_torn
        try:
            return found.st_size > 0 and os.pread(fd, 1, found.st_size - 1) != _LINE_END
        finally:
            os.close(fd)

    def _add(self, data: bytes) -> bytes:
        """Write what is taken of some bytes; return the rest."""
        try:
            taken = os.write(self._fd, data)
        except BlockingIOError:  # who shares standard output has asked for that
            waits = select.poll()
            waits.register(self._fd, select.POLLOUT)
            waits.poll()
            return data
        self._is_torn = data[taken - 1 : taken] != _LINE_END
        return data[taken:]
