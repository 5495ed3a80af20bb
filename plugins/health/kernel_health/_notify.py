"""What systemd is told, by the protocol of sd_notify(3): datagrams to the socket that `NOTIFY_SOCKET` names."""

from __future__ import annotations

import math
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, final

import attrs

from kernel import Event, KernelReady, KernelStopped, Snapshot, State, StateChanged, StopRequested

from ._config import TruthConfig
from ._truth import not_live

_STATUS_MAX: Final = 200
_AGAIN: Final = 0.05
"""Seconds until what there was no room for is sent again."""
HEARD: Final = (StateChanged, KernelReady, StopRequested, KernelStopped)
"""What a `Notifier` wants to hear."""


@final
@attrs.define(eq=False, repr=False)
class Notifier:
    """Tells systemd how a service is. What cannot be told is not: nobody there must not hold up a service."""

    _sock: socket.socket
    _address: str
    _config: TruthConfig
    watchdog: float = math.inf
    """Seconds in which systemd wants to hear that the service lives; infinite if it does not."""
    mask: Callable[[str], str] = str
    """Takes the secrets out of a text."""
    grace_period: float = 0.0
    """Seconds that a stop may take."""
    _is_ready: bool = attrs.field(default=False, init=False)
    _stopping: bool = attrs.field(default=False, init=False)
    _owed: list[str] = attrs.field(factory=list[str], init=False)
    """What must arrive and had no room."""
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    """The event loop tells, and a thread does."""

    @classmethod
    def of(cls, environ: Mapping[str, str], config: TruthConfig) -> Notifier | None:
        """Return what tells whom the environment names; None if nobody listens there."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.settimeout(0)
        address = f"\0{address[1:]}" if address.startswith("@") else address
        return cls(sock, address, config, watchdog=_watchdog_of(environ))

    def hear(self, event: Event) -> None:
        """Tell what an event means to systemd; called in the event loop."""
        match event:
            case KernelReady():
                self._is_ready = True
                self.tell("READY=1", "STATUS=ready")
            case StopRequested():
                self._stopping = True
                extended = math.ceil((self.grace_period + 1) * 1_000_000)
                self.tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={extended}", f"STATUS=stopping: {event.reason}")
            case KernelStopped():
                self.tell("STATUS=stopped")
            case StateChanged() if self._is_worth_a_line(event):
                reason = f": {event.reason}" if event.reason else ""
                self.tell(f"STATUS={event.component} is {event.new.value}{reason}")
            case _:
                pass

    def _is_worth_a_line(self, event: StateChanged) -> bool:
        if self._stopping:
            return False
        return not self._is_ready or event.new in {State.DEGRADED, State.BACKOFF, State.FAILED, State.READY}

    def tick(self, snapshot: Snapshot) -> float:
        """Say that the service lives, if it does; called in a thread.

        Returns:
            The seconds after which to call this again.
        """
        if self.watchdog < math.inf and not list(not_live(snapshot, self._config)):
            self.tell("WATCHDOG=1")
        if self._owed:
            self.tell("STATUS=ready" if self._is_ready else "STATUS=starting")
        return min(self.watchdog / 3, _AGAIN if self._owed else math.inf)

    def tell(self, *lines: str) -> None:
        """Send lines in one datagram. Waits for nobody; what must arrive is sent again when there is room."""
        text = "\n".join(self.mask(line)[:_STATUS_MAX].replace("\n", " ") for line in lines)
        with self._lock, suppress(OSError):
            try:
                self._sock.sendto("\n".join([*self._owed, text]).encode(errors="replace"), self._address)
                self._owed.clear()
            except BlockingIOError:  # a unix socket holds ten datagrams that systemd has not taken yet
                self._owed += [line for line in lines if not line.startswith(("STATUS=", "WATCHDOG="))]

    def close(self) -> None:
        """Tell nothing any more."""
        if self._owed:
            self.tell("STATUS=stopped")
        self._sock.close()


def _watchdog_of(environ: Mapping[str, str]) -> float:
    """Return what systemd asks for, if it asks this process."""
    asked, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (asked.isascii() and asked.isdecimal() and int(asked)) or pid not in {"", str(os.getpid())}:
        return math.inf
    return int(asked) / 1_000_000
