"""Tells whether a file lies on another machine, where SQLite's locks and shared memory do not work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")
_REMOTE: Final = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "gfs2", "lustre", "ncpfs", "nfs",
    "nfs4", "ocfs2", "smb3", "smbfs", "virtiofs",
})  # fmt: skip


def remote_file_system(path: Path) -> str:
    """Return the type of the network file system that a file lies on; empty if it lies on none, or nothing tells."""
    if sys.platform != "linux":
        return ""
    try:
        found = file_system(path.resolve(), MOUNTS.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return found if found in _REMOTE else ""


def file_system(path: Path, mounts: str) -> str:
    """Return the type of the file system that a path lies on.

    Args:
        path: Absolute, without links.
        mounts: As in /proc/self/mountinfo. Source: proc(5).
    """
    nearest, kind = Path(), ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(_unescaped(fields[4]))
        if path.is_relative_to(point) and len(point.parts) >= len(nearest.parts):  # the later mount hides the earlier
            nearest, kind = point, after.split()[0]
    return kind


def _unescaped(text: str) -> str:
    """Return a mount point whose spaces and the like were written in octal."""
    for char in " \t\n\\":
        text = text.replace(f"\\{ord(char):03o}", char)
    return text
