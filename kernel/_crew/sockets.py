"""The listening sockets of a crew: bound by the parent, shared by all processes, open for as long as any of them wants.

What waits at such a socket outlives each process, and whichever is free takes it.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import TypeAlias, final

import attrs

from .._core.crew import Endpoint

Key: TypeAlias = tuple[str, Endpoint]
"""Owner, and where."""


@final
@attrs.define(eq=False, repr=False)
class Sockets:
    """What the parent holds open."""

    _open: dict[Key, socket.socket] = attrs.field(factory=dict[Key, socket.socket], init=False)
    _is_over: bool = attrs.field(default=False, init=False)

    def at(self, key: Key) -> socket.socket:
        """Return the socket of an owner at an endpoint; bind it if there is none.

        Raises:
            OSError: if it cannot be bound, or the crew stops.
        """
        if self._is_over:
            raise OSError(0, "the service stops")
        if key not in self._open:
            self._open[key] = _bound(key[1])
        return self._open[key]

    @property
    def held(self) -> frozenset[Key]:
        """What is open."""
        return frozenset(self._open)

    def drop(self, keys: Iterable[Key]) -> None:
        """Close those that nobody wants any more."""
        for key in self._open.keys() & set(keys):
            _close(key[1], self._open.pop(key))

    def close(self) -> None:
        """Close all: the processes take what waits at their copies, and nobody else is let in."""
        self._is_over = True
        self.drop(self.held)


def _bound(at: Endpoint) -> socket.socket:
    if at.fd is not None:
        return _given(at.fd)
    family = socket.AF_UNIX if at.path else socket.AF_INET6 if ":" in at.host else socket.AF_INET
    raw = socket.socket(family, socket.SOCK_STREAM)
    try:
        if at.path:
            _remove_stale(at.path)
            raw.bind(at.path)
            os.chmod(at.path, at.mode)  # nobody can connect before it listens
        else:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family is socket.AF_INET6:
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            raw.bind((at.host, at.port))
        raw.listen(at.backlog)
    except BaseException:
        raw.close()
        raise
    return raw


def _given(number: int) -> socket.socket:
    """Return a copy of a socket that somebody else has bound, such as systemd."""
    raw = socket.socket(fileno=os.dup(number))
    if not raw.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raw.close()
        raise OSError(0, "is no socket that listens")
    return raw


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that is gone; whatever else is there stays, and binding fails."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode) and not _answers(path):
            os.unlink(path)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            pass
        return True


def _close(at: Endpoint, raw: socket.socket) -> None:
    raw.close()
    if at.path:
        with suppress(OSError):
            os.unlink(at.path)
