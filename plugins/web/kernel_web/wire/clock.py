"""The time and the date, read once a tick for all connections: to ask for each request costs more than to parse it."""

from __future__ import annotations

import time
from typing import Final, final

import trio

TICK_MAX: Final = 0.25
"""Seconds between two looks at the deadlines, at most."""
_LOOKS: Final = 5
"""How often a deadline is looked at in the time that it gives."""


@final
class Clock:
    """Moved by whoever looks at the deadlines, every `tick` seconds."""

    __slots__ = ("common", "date", "fields", "now", "tick")

    def __init__(self, shortest: float, *, server_header: bool = False) -> None:
        """Begin now.

        Args:
            shortest: Seconds of the shortest time limit.
            server_header: Whether `common` says which server it is.
        """
        self.tick = min(TICK_MAX, shortest / _LOOKS)
        self.now = 0.0
        """Never earlier than it is, and at most a tick later: no deadline is kept early."""
        self.date = ""
        """As ISO 8601 has it, in UTC."""
        self.common = b""
        """The header lines that every answer of HTTP/1.1 has."""
        self.fields: list[tuple[bytes, bytes]] = []
        """The same for HTTP/2."""
        self.move(server_header=server_header)

    def move(self, *, server_header: bool) -> None:
        """Read the time and the date."""
        self.now = trio.current_time() + self.tick
        moment = time.gmtime()
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", moment).encode()
        self.date = time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)
        self.fields = [(b"date", date), *([(b"server", b"kernel")] if server_header else ())]
        self.common = b"".join([b"%b: %b\r\n" % field for field in self.fields])
