"""What systemd is told of a crew, by the protocol of sd_notify(3): the parent does that, and none of its processes."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

import trio

from .._core.crew import STATE
from .parent import Parent
from .process import collect

_STUCK = 10.0
"""Seconds for which an event loop may be busy with one turn, for its process to be alive."""
_LINE = 200


def tell_systemd(environ: Mapping[str, str], *lines: str) -> None:
    """Send lines in one datagram, if the environment names who hears them. Waits for nobody."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    address = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.setblocking(False)  # noqa: FBT003
        sock.sendto("\n".join(line[:_LINE] for line in lines).encode(errors="replace"), address)


async def keep_alive(parent: Parent) -> None:
    """Tell systemd that the service is alive, as often as it wants to hear it, for as long as all processes are.

    Cancellation: Is a checkpoint.
    """
    seconds = _watchdog_of(os.environ)
    while seconds is not None:
        await trio.sleep(seconds / 3)
        told = await collect(parent.processes, STATE)
        if len(told) == len(parent.processes) and _busy_seconds(told) <= _STUCK:
            parent.tell_manager("WATCHDOG=1")
    await trio.lowlevel.checkpoint()


def _busy_seconds(told: Mapping[int, str]) -> float:
    """Return for how long the event loop that is busy the longest has been so, of what processes tell of themselves."""
    return max((float(json.loads(text)["busy"]) for text in told.values()), default=0.0)


def _watchdog_of(environ: Mapping[str, str]) -> float | None:
    """Return the seconds in which systemd wants to hear that this process lives; None if it does not."""
    asked, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (asked.isascii() and asked.isdecimal() and int(asked)) or pid not in {"", str(os.getpid())}:
        return None
    return int(asked) / 1_000_000
