"""Who listens at an address already: looked up in Linux's /proc, and unknown elsewhere."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from .._config import Address

_LISTEN = "0A"


def owner_of(address: Address) -> str:
    """Return "pid 1234, name" of who listens at an address (or at all addresses of its port); empty if unknown.

    Processes of other users cannot be seen.
    """
    inodes = set(_unix_inodes(address.path) if address.path else _tcp_inodes(address))
    pids = (pid for pid in _pids() if inodes & set(_socket_inodes(pid))) if inodes else iter(())
    return next((f"pid {pid}{_name(pid)}" for pid in pids), "")


def _name(pid: int) -> str:
    try:
        return f", {Path(f'/proc/{pid}/comm').read_text().strip()}"
    except OSError:
        return ""


def _tcp_inodes(address: Address) -> Iterator[str]:
    wanted = {_packed(address.host), _packed("0.0.0.0"), _packed("::")}
    for table in ("tcp", "tcp6"):
        for line in _lines(f"/proc/net/{table}"):
            host, _, port = line[1].partition(":")
            if line[3] == _LISTEN and int(port, 16) == address.port and host in wanted:
                yield line[9]


def _unix_inodes(path: str) -> Iterator[str]:
    return (line[6] for line in _lines("/proc/net/unix") if line[-1] == path)


def _packed(host: str) -> str:
    """Return an address as the kernel prints it: words of four bytes in the machine's order."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def _lines(path: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path(path).read_text().splitlines()[1:]]
    except OSError:
        return []


def _pids() -> Iterator[int]:
    try:
        return (int(name) for name in os.listdir("/proc") if name.isdecimal())
    except OSError:
        return iter(())


def _socket_inodes(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]
