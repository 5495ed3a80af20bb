"""The access log: a line for each request, gathered in memory and written by a thread, so that no request waits for it."""

from __future__ import annotations

import os
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, Final, final

import attrs
import trio

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

    def add(
        self,
        scope: dict[str, Any],
        worker: str,
        seconds: float,
        name: str,
        status: int,
        received: int,
        sent: int,
        date: str,
    ) -> None:
        """Take a request that has ended at a moment: what `done` takes."""
        lines = self._lines
        if len(lines) >= LINES_MAX:
            self.dropped += 1
        elif self._as_json:
            lines.append(_as_json(scope, worker, seconds, name, status, received, sent, date))
        else:
            lines.append(_as_text(scope, worker, seconds, name, status, sent, date))

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


# Without a call or a look that can be saved: each request pays for it.
def _as_text(scope: dict[str, Any], worker: str, seconds: float, name: str, status: int, sent: int, date: str) -> str:
    client, path = scope.get("client"), scope["raw_path"].decode("latin-1")
    if '"' in path:
        path = path.replace('"', "%22")
    return (
        f'{client[0] if client else "-"} [{date}] "{scope.get("method", "websocket")} {path} HTTP/{scope["http_version"]}" '
        f"{status} {sent} {seconds:.6f} {worker or '-'} {name}\n"
    )


def _as_json(
    scope: dict[str, Any], worker: str, seconds: float, name: str, status: int, received: int, sent: int, date: str
) -> str:
    client = scope.get("client")
    return (
        f'{{"time": "{date}", "client": {_quoted(str(client[0])) if client else _NOTHING}, '
        f'"method": {_quoted(scope.get("method", "websocket"))}, "path": {_quoted(scope["raw_path"].decode("latin-1"))}, '
        f'"version": "{scope["http_version"]}", "status": {status}, "received": {received}, '
        f'"sent": {sent}, "seconds": {seconds:.6f}, '
        f'"worker": "{worker}", "request_id": "{name}"}}\n'  # as the id, it has no character that is to be quoted
    )


_NOTHING: Final = '""'
