"""A port for a server that has to be told its own before it starts."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from typing import Final

_PORTS: Final = range(20_000, 32_000)
"""Below what systems hand out: Linux from 32768 (net.ipv4.ip_local_port_range), others from 49152 (RFC 6335, 6)."""
_TRIES: Final = 100
_given: Final = set[int]()
"""Those that this process has given out: a test that wants two has them before a server listens at either."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has, for a server that cannot be started with port 0.

    The system gives it to no connection and to nobody who asks for port 0, so it stays free unless somebody wants this
    very one. A process gets each once; test processes side by side draw others, whatever seed they run with.

    Raises:
        OSError: if none of a hundred is free.
    """
    for _ in range(_TRIES):
        port = secrets.choice(_PORTS)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
    raise OSError(f"none of {_TRIES} ports from {_PORTS.start} to {_PORTS.stop - 1} is free")
