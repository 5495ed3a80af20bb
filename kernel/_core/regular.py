"""Files that others write, read so that nobody waits for what is none; public through `kernel.abc`."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

_MOST: Final = 1 << 20


def read_regular(path: str | Path, *, most: int = _MOST) -> bytes:
    """Return what a regular file holds.

    A pipe is refused, and not waited for. A file system that does not answer blocks all the same: call it in a thread.

    Args:
        path: Of the file.
        most: Bytes that it may hold.

    Raises:
        OSError: if it cannot be read; also if it is no regular file, or holds more. `strerror` is set.
    """
    with open(path, "rb", opener=open_at_once) as source:
        if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            raise _refused("is no regular file", path)
        data = source.read(most + 1)
    if len(data) > most:
        raise _refused(f"is larger than {most} bytes", path)
    return data


def open_at_once(path: str, flags: int) -> int:
    """Open a file as `open` has it, without a wait for the writer of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _refused(reason: str, path: str | Path) -> OSError:
    error = OSError(f"{reason}: {path}")
    error.strerror = reason
    return error
