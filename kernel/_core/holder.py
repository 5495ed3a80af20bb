"""Why nothing can listen at an address: who does already is looked up in Linux's /proc, and unknown elsewhere.

Public through `kernel.abc`.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from .crew import Endpoint

_LISTEN: Final = "0A"
_EVERYWHERE: Final = ("0.0.0.0", "::")
_PRIVILEGED: Final = 1024


def why_not_listening(error: OSError, endpoint: Endpoint) -> str:
    """Return why an endpoint cannot be bound, and what to do; who has it is named, if that can be seen.

    It blocks, and reads /proc, which may be large: call it in a thread.

    Args:
        error: What binding it raised.
        endpoint: Where; the host may be a name, and an empty one is all addresses.
    """
    if error.errno == errno.EADDRINUSE:
        return _in_use(endpoint)
    if error.errno in {errno.EACCES, errno.EPERM}:
        below = ": ports below 1024 are privileged, bind another"
        return f"permission denied{below * (not endpoint.path and endpoint.port < _PRIVILEGED)}"
    if error.errno == errno.EADDRNOTAVAIL:
        return 'this machine has no such address: bind one of its own, or "0.0.0.0" for all'
    return error.strerror or str(error)


def _in_use(endpoint: Endpoint) -> str:
    other = "path" if endpoint.path else "port"
    pid = _holder(endpoint)
    holder = "" if pid is None else f" (pid {pid}{_name(pid)}{', this process itself' * (pid == os.getpid())})"
    return f"address already in use{holder}: stop who listens there, or bind another {other}"


def _holder(endpoint: Endpoint) -> int | None:
    """Return who listens at an endpoint, or at all addresses of its port; None for processes of other users."""
    inodes = set(_unix_inodes(endpoint.path) if endpoint.path else _tcp_inodes(endpoint))
    pids = (pid for pid in _pids() if inodes & set(_socket_inodes(pid))) if inodes else iter(())
    return next(pids, None)


def _name(pid: int) -> str:
    try:
        return f", {Path(f'/proc/{pid}/comm').read_text().strip()}"
    except OSError:
        return ""


def _tcp_inodes(endpoint: Endpoint) -> Iterator[str]:
    wanted = _hosts(endpoint.host)
    for table in ("tcp", "tcp6"):
        for line in _lines(f"/proc/net/{table}"):
            host, _, port = line[1].partition(":")
            is_there = wanted is None or host in wanted
            if line[3] == _LISTEN and int(port, 16) == endpoint.port and is_there:
                yield line[9]


def _hosts(host: str) -> Collection[str] | None:
    """Return the addresses that keep a host from being bound, as the system prints them; None for any."""
    if host in {"", "*", *_EVERYWHERE}:
        return None
    return {_packed(each) for each in (*_numeric(host), *_EVERYWHERE)}


def _numeric(host: str) -> Iterator[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return
    yield from (str(entry[4][0]).partition("%")[0] for entry in found)


def _unix_inodes(path: str) -> Iterator[str]:
    return (line[6] for line in _lines("/proc/net/unix") if line[-1] == path)


def _packed(host: str) -> str:
    """Return an address as the system prints it: words of four bytes in the machine's order."""
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
