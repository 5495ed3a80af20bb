"""A thread that sees what no task can: code that blocks the event loop or ignores its cancellation.

It names a line that blocks the loop, and when the grace period of a stop is over it names what still runs and ends
the process. A thread, because whoever blocks the loop blocks every task with it. It writes in further threads: what
blocks the loop may be a standard error that nobody reads.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeAlias, final

import attrs
import trio
from typing_extensions import override

from .._core.pulse import STALL, Pulse
from .._core.stacks import where_in_thread
from .leash import End, Leash

LastWords: TypeAlias = Callable[[str, Sequence[str]], object]
"""Writes why the process ends now, and what still runs, each as `kind/name at file:line`."""
_PERIOD: Final = 0.1
_ANSWER_WITHIN: Final = 0.3
_WRITE_WITHIN: Final = 0.05


@final
@attrs.define(eq=False, repr=False)
class Watchdog(Pulse):
    """Watches one run of trio from outside. Pass it as an instrument, and call `start` inside the run."""

    grace_period: float
    """Seconds from `arm` until the process is ended."""
    exit_status: int
    on_stall: Callable[[float, str], None]
    """Called with the seconds so far and `file:line`, once for each stall, in a thread, while it lasts."""
    after_stall: Callable[[float, str], None]
    """Called with all its seconds and the same `file:line`, in the event loop, once that goes on."""
    last_words: LastWords = attrs.field(default=lambda text, culprits: write_last_words(text, culprits))  # noqa: PLW0108  defined below
    hanging: Callable[[], Sequence[str]] = attrs.field(default=list)
    """Returns what has not stopped; called in the event loop."""
    leash: Leash | None = None
    """What else bounds the process, and says its exit status; None if nothing does."""
    _stall: tuple[float, str] | None = attrs.field(default=None, init=False)
    """When the stall that was named began, and where it is."""
    _end_at: float | None = attrs.field(default=None, init=False)
    _left: End | None = attrs.field(default=None, init=False)
    """When the process ends, since nothing but what was left behind still runs."""
    _over: threading.Event = attrs.field(factory=threading.Event, init=False)
    _token: trio.lowlevel.TrioToken = attrs.field(init=False)

    def start(self) -> None:
        """Begin to watch the calling thread's event loop."""
        self.begin()
        self._token = trio.lowlevel.current_trio_token()
        threading.Thread(target=self._watch, name="kernel-watchdog", daemon=True).start()

    def arm(self) -> None:
        """Begin to count the grace period; later calls change nothing. Safe in a signal handler."""
        if self._end_at is None:
            self._end_at = time.monotonic() + self.grace_period

    def let_go(self, seconds: float) -> None:
        """End the process after so many seconds if it has not ended by then: it waits only for what was left behind."""
        text = "what was left behind does not end"
        self._left = End(time.monotonic() + seconds, self._status(), text)

    def stop(self) -> None:
        """Stop watching; without it, the grace period also bounds what the process does after the run."""
        self._over.set()

    @override
    def before_io_wait(self, timeout: float) -> None:
        super().before_io_wait(timeout)
        if self._stall is not None:
            (began, place), self._stall = self._stall, None
            self.after_stall(time.monotonic() - began, place)

    def _watch(self) -> None:
        named: float | None = None
        while not self._over.wait(self._pause()):
            now, busy = time.monotonic(), self.busy_since
            if busy is not None and busy != named and now - busy > STALL:
                named = busy
                with suppress(RuntimeError):  # no thread can be started: who watches goes on
                    self._name_stall(busy, now)
            end = self._end()
            if end is not None and now >= end.at - _ANSWER_WITHIN - _WRITE_WITHIN:
                self._end_process(end)

    def _end(self) -> End | None:
        """Return when the process has to end, as it is known now."""
        grace = None if self._end_at is None else self._end_of_grace(self._end_at)
        limit = None if self.leash is None else self.leash.limit
        return min(filter(None, (grace, limit, self._left)), key=lambda end: end.at, default=None)

    def _end_of_grace(self, at: float) -> End:
        return End(at, self._status(), f"grace_period = {self.grace_period:g} s is over")

    def _status(self) -> int:
        return (0 if self.leash is None else self.leash.status) or self.exit_status

    def _name_stall(self, began: float, now: float) -> None:
        place = where_in_thread(self.thread)
        self._stall = (began, place)
        _in_thread(self.on_stall, now - began, place)

    def _pause(self) -> float:
        """Return how long to wait: a period, but not longer than until it must be asked what still runs."""
        end = self._end()
        if end is None:
            return _PERIOD
        return max(0.0, min(_PERIOD, end.at - _ANSWER_WITHIN - _WRITE_WITHIN - time.monotonic()))

    def _end_process(self, end: End) -> None:
        """End the process at its end and not later: what still runs is asked and told before.

        It goes on if the end was that of a leash, and what had it has ended by itself meanwhile.
        """
        try:
            culprits = self._culprits()
            if not self._over.wait(max(0.0, end.at - _WRITE_WITHIN - time.monotonic())) and self._ends(end):
                _in_thread(self.last_words, f"{end.text}; ending the process", culprits).join(_WRITE_WITHIN)
        finally:
            if not self._over.is_set() and self._ends(end):
                os._exit(end.status)  # nothing gentler ends a process whose main thread does not return

    def _ends(self, end: End) -> bool:
        now = self._end()
        return now is not None and now.at <= end.at

    def _culprits(self) -> Sequence[str]:
        """Ask the event loop what still runs; if it does not answer, name the line that blocks it."""
        answer: list[str] = []
        answered = threading.Event()

        def ask() -> None:
            answer.extend(self.hanging())
            answered.set()

        try:
            self._token.run_sync_soon(ask)
        except trio.RunFinishedError:
            return _threads()
        if answered.wait(_ANSWER_WITHIN):
            return answer or _threads()
        return [f"the event loop, blocked at {where_in_thread(self.thread)}"]


def _in_thread(call: Callable[..., object], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=call, args=arguments, name="kernel-watchdog-writer", daemon=True)
    thread.start()
    return thread


def _threads() -> list[str]:
    threads = [thread for thread in threading.enumerate() if not thread.daemon]
    return [f"thread {thread.name} at {where_in_thread(thread.ident or 0)}" for thread in threads]


def write_last_words(text: str, culprits: Sequence[str]) -> None:
    """Write to standard error why the process ends, and what still runs."""
    lines = "".join(f"  {culprit}\n" for culprit in culprits)
    # Not by sys.stderr: whoever hangs may hold its lock.
    with suppress(OSError):
        os.write(2, f"kernel: {text}. Still running:\n{lines}".encode(errors="backslashreplace"))
