"""The access log: a line for each request, gathered in memory and written by a thread, so that no request waits for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring_ascii as _quoted
from typing import Final, TypeAlias, final

import attrs
import trio

from kernel import RequestFigures, new_id

from ..wire.lines import LinesFile
from .missed import Missed

LINES_MAX: Final = 20_000
"""Lines that may wait to be written; more are dropped and counted."""
TEXT_MAX: Final = 16 * 1024 * 1024
"""Characters that may; a line of a client that asks for a long path has thousands."""
CLOSE_TIMEOUT: Final = 1.0
"""Seconds that the last lines may take at the end."""

Seen: TypeAlias = tuple[str, bytes, str, str]
"""What is known of a request besides its figures: the client's address, if it has one, the path as it was sent, the
version of HTTP, and what it is called; empty if it has no name yet."""


@final
@attrs.define(eq=False, repr=False)
class AccessLog:
    """Takes what requests were, and writes it in one of two formats."""

    _file: LinesFile
    _lines_of: Callable[[Sequence[RequestFigures], Sequence[Seen], str], list[str]]
    """`as_text` or `as_json`."""
    _missed: Missed
    _limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1), init=False)
    """A thread of its own, for when sync endpoints have taken all; one, so that lines stay in order."""
    _portions: deque[tuple[str, int]] = attrs.field(factory=deque["tuple[str, int]"], init=False)
    """Lines that wait to be written, and how many they are: the event loop adds, a thread takes. Text, and not what it is
    made of: requests that are kept for a moment each make the garbage collector go through all that the process holds,
    again and again."""
    _added: int = attrs.field(default=0, init=False)
    """Lines, as the event loop counts them; as are the next."""
    _added_text: int = attrs.field(default=0, init=False)
    """Characters."""
    _taken: int = attrs.field(default=0, init=False)
    """Lines that do not wait any more, as the thread counts them; as are the next."""
    _taken_text: int = attrs.field(default=0, init=False)
    """Characters."""
    _done: int = attrs.field(default=0, init=False)
    """Lines of which it is known whether they were written."""
    _losses: deque[tuple[int, str]] = attrs.field(factory=deque["tuple[int, str]"], init=False)
    """Lines that could not be written, and why, as the thread tells the event loop."""

    @property
    def dropped(self) -> int:
        """Lines for which there was no room, or that could not be made or written."""
        return self._missed.total

    def add(self, figures: Sequence[RequestFigures], seen: Sequence[Seen], date: str) -> None:
        """Take requests that have ended at about one moment. Raises nothing.

        Args:
            figures: What is counted of each.
            seen: What is known of each besides.
            date: The moment.
        """
        room = LINES_MAX - (self._added - self._taken) if self._added_text - self._taken_text < TEXT_MAX else 0
        if len(figures) > room:
            self._missed.add(len(figures) - room, "they are not taken as fast as they come")
            figures, seen = figures[:room], seen[:room]
        lines = self._made(figures, seen, date)
        if len(lines) < len(figures):
            self._missed.add(
                len(figures) - len(lines), "an application has put into its scope what no line can be made of"
            )
        if lines:
            text = "".join(lines)
            self._added += len(lines)
            self._added_text += len(text)
            self._portions.append((text, len(lines)))

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
            await self.flush()

    async def flush(self) -> None:  # noqa: ASYNC910  suspends only to wait
        """Write what has come, and say what becomes of it. To be called in one task at a time."""
        was_written = bool(self._portions)
        if was_written:
            await self._write_waiting()
        self._missed.look(was_written=was_written and not self._tell_losses())

    async def close(self) -> None:
        """Write the rest, and close the file.

        It is not closed where the last lines are still being written when their time is over: the thread might yet write
        to whatever gets its number.

        Cancellation: Is a checkpoint. It is shielded, and takes a second at most.
        """
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True) as scope:
            await self._write_waiting()
        self._tell_losses()
        if scope.cancelled_caught:
            self._missed.add(self._added - self._done, "nobody has taken them")
        else:
            self._file.close()
        self._missed.end()

    def _tell_losses(self) -> bool:
        """Say what could not be written; return whether there was such."""
        had_some = bool(self._losses)
        while self._losses:
            self._missed.add(*self._losses.popleft())
        return had_some

    async def _write_waiting(self) -> None:
        await trio.to_thread.run_sync(self._write, abandon_on_cancel=True, limiter=self._limiter)

    def _write(self) -> None:
        """Write all that waits. Called in a thread, and never in two at a time."""
        texts, count = list[str](), 0
        while self._portions:
            text, lines = self._portions.popleft()
            texts.append(text)
            count += lines
        if not count:
            return
        text = "".join(texts)
        self._taken += count
        self._taken_text += len(text)
        lost, reason = self._file.write(text.encode(errors="replace"))
        if lost:
            self._losses.append((lost, reason))
        self._done += count


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
