"""The access log: a line for each request, gathered in memory and written by a thread, so that no request waits for it."""

from __future__ import annotations

import os
from json.encoder import encode_basestring_ascii as _quoted
from typing import Final, final

import attrs
import trio

from .events import RequestDone

LINES_MAX: Final = 20_000
"""Lines that may wait to be written; more are dropped and counted."""
_CLOSE_TIMEOUT: Final = 1.0
"""Seconds that the last lines may take at the end."""


@final
@attrs.define(eq=False, repr=False)
class AccessLog:
    """Takes what requests were, and writes it in one of two formats."""

    _fd: int
    _as_json: bool
    _limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(2), init=False)
    """A thread of its own, for when sync endpoints have taken all; a second for the last lines if the first hangs."""
    _lines: list[str] = attrs.field(factory=list[str], init=False)
    """Text, and not what it is made of: requests that are kept for a moment each make the garbage collector go through
    all that the process holds, again and again."""
    dropped: int = attrs.field(default=0, init=False)
    """Lines for which there was no room."""

    def add(self, event: RequestDone, date: str) -> None:
        """Take a request that has ended at a moment."""
        if len(self._lines) < LINES_MAX:
            self._lines.append(_as_json(event, date) if self._as_json else _as_text(event, date))
        else:
            self.dropped += 1

    async def write(self, every: float) -> None:
        """Write what has come, every few seconds, until cancelled; then the rest."""
        try:
            while True:
                await trio.sleep(every)
                if self._lines:
                    await trio.to_thread.run_sync(self._write, limiter=self._limiter)
        finally:
            with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await trio.to_thread.run_sync(self._write, abandon_on_cancel=True, limiter=self._limiter)

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        data = "".join(lines).encode(errors="replace")
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError:  # a disk that is full, a reader that is gone: nothing that a request should feel
                self.dropped += len(lines)
                return


def _as_text(event: RequestDone, date: str) -> str:
    path = event.path.replace('"', "%22")
    asked = f'"{event.method} {path} HTTP/{event.version}"'
    client, worker, name = event.client or "-", event.worker or "-", event.request_id or "-"
    return f"{client} [{date}] {asked} {event.status} {event.sent} {event.seconds:.6f} {worker} {name}\n"


def _as_json(event: RequestDone, date: str) -> str:  # by hand, since each request pays for it
    return (
        f'{{"time": "{date}", "client": {_quoted(event.client)}, "method": {_quoted(event.method)}, '
        f'"path": {_quoted(event.path)}, "version": {_quoted(event.version)}, "status": {event.status}, '
        f'"received": {event.received}, "sent": {event.sent}, "seconds": {event.seconds:.6f}, '
        f'"worker": {_quoted(event.worker)}, "request_id": {_quoted(event.request_id)}}}\n'
    )
