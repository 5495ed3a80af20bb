"""Where control sockets are: one file for each service that runs, in a folder that belongs to its user."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, final

import attrs

LONGEST: Final = 107
"""Bytes of a path that a socket can have on Linux."""
_ENDING: Final = ".sock"


@final
@attrs.frozen(order=True)
class Place:
    """The socket of one process."""

    service: str
    pid: int
    path: Path

    @classmethod
    def of(cls, service: str, environ: Mapping[str, str], *, pid: int | None = None) -> Place:
        """Return where the service that a process runs has its socket; this process, if none is named.

        One of several processes of a service is called `SERVICE.NUMBER`.
        """
        folder, pid = _folders(environ)[0], pid or os.getpid()
        return cls(service, pid, folder / f"{service}-{pid}{_ENDING}")

    @property
    def is_one_of_several(self) -> bool:
        """Whether it is that of one of several processes, which have a parent that answers for all."""
        return "." in self.service

    @property
    def is_stale(self) -> bool:
        """Whether its process is gone, so that nobody will answer."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False

    @property
    def is_halted(self) -> bool:
        """Whether SIGSTOP or SIGTSTP halts its process, as far as the system tells."""
        try:
            status = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return status.rpartition(")")[2].strip()[:1] in {"T", "t"}


def make_folder(path: Path) -> None:
    """Make the folder of a socket, for its user alone.

    Raises:
        OSError: if it cannot be made, or belongs to somebody else, who could put another socket there.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{path} must be a folder that only its user can write to, and that user this one")


def listed(environ: Mapping[str, str]) -> list[Place]:
    """Return the sockets that there are, those of processes that are gone left out, in order."""
    folders = [folder for folder in _folders(environ) if folder != _fallback() or _is_ours(folder)]
    return sorted({place for folder in folders for place in _in_folder(folder) if not place.is_stale})


def remove_stale(folder: Path) -> None:
    """Delete what processes of this user that were killed have left."""
    for place in _in_folder(folder):
        if place.is_stale:
            place.path.unlink(missing_ok=True)


def at(path: Path) -> Place | None:
    """Return the place that a path is, if it is called like one."""
    service, dash, pid = path.name.removesuffix(_ENDING).rpartition("-")
    is_one = path.name.endswith(_ENDING) and dash and pid.isdecimal()
    return Place(service, int(pid), path) if is_one else None


def _in_folder(folder: Path) -> Iterator[Place]:
    try:
        paths = list(folder.iterdir())
    except OSError:
        return
    yield from filter(None, map(at, paths))


def _folders(environ: Mapping[str, str]) -> list[Path]:
    """Return the folders that sockets may be in; a service has its own in the first. One that is given is the only one."""
    if given := environ.get("KERNEL_CONTROL_DIR"):
        return [Path(given)]
    by_systemd = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    by_login = environ.get("XDG_RUNTIME_DIR")
    found = [by_systemd, f"{by_login}/kernel" if by_login else None, str(_fallback())]
    return [Path(folder) for folder in found if folder]


def _fallback() -> Path:
    """Return the folder where nobody says another one. Anybody may make one of that name."""
    return Path(f"/tmp/kernel-{os.geteuid()}")


def _is_ours(folder: Path) -> bool:
    try:
        return folder.lstat().st_uid == os.geteuid()
    except OSError:
        return False
