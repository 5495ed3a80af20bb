"""The access log: a line for each request, gathered in memory and written by a thread, so that no request waits for it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring_ascii as _quoted
from typing import Final, TypeAlias, final

import attrs
import trio

from kernel import RequestFigures, new_id

LINES_MAX: Final = 20_000
"""Lines that may wait to be written; more are dropped and counted."""
CLOSE_TIMEOUT: Final = 1.0
"""Seconds that the last lines may take at the end."""

Seen: TypeAlias = tuple[str, bytes, str, str]
"""What is known of a request besides its figures: the client's address, if it has one, the path as it was sent, the
version of HTTP, and what it is called; empty if it has no name yet."""


@final
@attrs.define(eq=False, repr=False)
class AccessLog:
    """Takes what requests were, and writes it in one of two formats."""

    _fd: int
    _lines_of: Callable[[Sequence[RequestFigures], Sequence[Seen], str], list[str]]
    """`as_text` or `as_json`."""
    _limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1), init=False)
    """A thread of its own, for when sync endpoints have taken all; one, so that lines stay in order."""
    _portions: deque[tuple[str, int]] = attrs.field(factory=deque["tuple[str, int]"], init=False)
    """Lines that wait to be written, and how many they are: the event loop adds, a thread takes. Text, and not what it is
    made of: requests that are kept for a moment each make the garbage collector go through all that the process holds,
    again and again."""
    _added: int = attrs.field(default=0, init=False)
    """Lines, as the event loop counts them."""
    _taken: int = attrs.field(default=0, init=False)
    """Lines, as the thread counts them."""
    _unmade: int = attrs.field(default=0, init=False)
    """Requests, as the event loop counts them."""
    _unwritten: int = attrs.field(default=0, init=False)
    """Lines, as the thread counts them."""

    @property
    def dropped(self) -> int:
        """Lines for which there was no room, or that could not be made or written."""
        return self._unmade + self._unwritten

    def add(self, figures: Sequence[RequestFigures], seen: Sequence[Seen], date: str) -> None:
        """Take requests that have ended at about one moment. Raises nothing.

        Args:
            figures: What is counted of each.
            seen: What is known of each besides.
            date: The moment.
        """
        room = LINES_MAX - (self._added - self._taken)
        lines = self._made(figures[:room], seen[:room], date)
        self._unmade += len(figures) - len(lines)
        if lines:
            self._added += len(lines)
            self._portions.append(("".join(lines), len(lines)))

    def _made(self, figures: Sequence[RequestFigures], seen: Sequence[Seen], date: str) -> list[str]:
        try:
            return self._lines_of(figures, seen, date)
        except Exception:  # noqa: BLE001  an application can put anything into its scope: it costs its own line, and is counted
            if len(figures) == 1:
                return []
        return [line for one, its in zip(figures, seen, strict=True) for line in self._made((one,), (its,), date)]

    async def write(self, every: float, before: Callable[[], None]) -> None:
        """Write what has come, every few seconds, until cancelled. What is being written then still is.

        Args:
            every: Seconds.
            before: Adds what is to be written.
        """
        while True:
            await trio.sleep(every)
            before()
            if self._portions:
                await self._write_waiting()

    async def close(self, *, closes: bool) -> None:
        """Write the rest.

        Args:
            closes: Whether its file is closed. It is not where the last lines are still being written when their time is
                over: the thread might yet write to whatever gets its number.

        Cancellation: Is a checkpoint. It is shielded, and takes a second at most.
        """
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True) as scope:
            await self._write_waiting()
        if closes and not scope.cancelled_caught:
            os.close(self._fd)

    async def _write_waiting(self) -> None:
        await trio.to_thread.run_sync(self._write, abandon_on_cancel=True, limiter=self._limiter)

    def _write(self) -> None:
        """Write all that waits. Called in a thread, and never in two at a time."""
        texts, count = list[str](), 0
        while self._portions:
            text, lines = self._portions.popleft()
            texts.append(text)
            count += lines
        self._taken += count
        data = "".join(texts).encode(errors="replace")
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:  # a disk that is full, a reader that is gone: nothing that a request should feel
            self._unwritten += count


# Without a call or a look that can be saved: each request pays for it.
def as_text(figures: Sequence[RequestFigures], seen: Sequence[Seen], date: str) -> list[str]:
    """Return lines for people."""
    return [
        f'{client or "-"} [{date}] "{method} {_shown(path)} HTTP/{version}" '
        f"{status} {sent} {seconds:.6f} {worker or '-'} {name or new_id()}\n"
        for (worker, method, status, seconds, _, sent), (client, path, version, name) in zip(figures, seen, strict=True)
    ]


def _shown(path: bytes) -> str:
    return (path.replace(b'"', b"%22") if b'"' in path else path).decode("latin-1")


def as_json(figures: Sequence[RequestFigures], seen: Sequence[Seen], date: str) -> list[str]:
    """Return lines for programs."""
    return [
        f'{{"time": "{date}", "client": {_quoted(client)}, "method": {_quoted(method)}, '
        f'"path": {_quoted(path.decode("latin-1"))}, "version": "{version}", "status": {status}, '
        f'"received": {received}, "sent": {sent}, "seconds": {seconds:.6f}, '
        # The id, as the name of a worker, has no character that is to be quoted.
        f'"worker": "{worker}", "request_id": "{name or new_id()}"}}\n'
        for (worker, method, status, seconds, received, sent), (client, path, version, name) in zip(
            figures, seen, strict=True
        )
    ]
