"""The access log: a line for each request, gathered in memory and written by a thread, so that no request waits for it."""

from __future__ import annotations

import os
from json.encoder import encode_basestring_ascii as _quoted
from typing import Final, final

import attrs
import trio

from .record import Record

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

    def add(self, record: Record, date: str) -> None:
        """Take a request that has ended at a moment."""
        if len(self._lines) < LINES_MAX:
            self._lines.append(_as_json(record, date) if self._as_json else _as_text(record, date))
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


def _as_text(record: Record, date: str) -> str:
    path = record.path.replace('"', "%22")
    return (
        f'{record.client or "-"} [{date}] "{record.method} {path} HTTP/{record.scope["http_version"]}" '
        f"{record.status} {record.sent} {record.seconds:.6f} {record.worker or '-'} {record.name or '-'}\n"
    )


def _as_json(record: Record, date: str) -> str:  # by hand, since each request pays for it
    return (
        f'{{"time": "{date}", "client": {_quoted(record.client)}, "method": {_quoted(record.method)}, '
        f'"path": {_quoted(record.path)}, "version": {_quoted(record.scope["http_version"])}, '
        f'"status": {record.status}, "received": {record.received}, "sent": {record.sent}, '
        f'"seconds": {record.seconds:.6f}, "worker": {_quoted(record.worker)}, '
        f'"request_id": {_quoted(record.name)}}}\n'
    )
