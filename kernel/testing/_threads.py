"""Keeps a clock that jumps from jumping while a thread works: what it works at takes time that no clock of a test has."""

from __future__ import annotations

import concurrent.futures.thread
import importlib
import selectors
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from types import CodeType, FrameType
from typing import Any, Final, cast

import trio
from trio.testing import MockClock

_LOOK_AGAIN: Final = 0.0002
"""Real seconds between two looks at a thread that works."""
_POOL: Final[Any] = concurrent.futures.thread
_WAITING: Final = threading.Condition.wait.__code__
_POOLED: Final[CodeType] = _POOL._worker.__code__  # noqa: SLF001  where the threads of a pool wait for work
_SELECTING: Final = selectors.DefaultSelector.select.__code__
"""Where a thread waits for somebody outside, who cannot be asked."""


def hold_clock_for_threads() -> None:
    """Let the virtual clock of this run stand still whenever a thread works, to the end of the run.

    A thread works unless it waits for a lock or for work: whoever started it need not say anything. Threads that were
    there before do not count, but for those that trio keeps. Without a virtual clock nothing happens. `open_kernel`
    and `check_driver` call it.
    """
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, MockClock) or "_autojump" in vars(clock):
        return
    before = frozenset(threading.enumerate())
    loop, token, jumping = threading.get_ident(), trio.lowlevel.current_trio_token(), cast("Any", clock)
    jump = jumping._autojump  # noqa: SLF001  trio has no hook for it

    def jump_if_nobody_works() -> None:
        if any(_works(frame) for frame in _frames(before, loop)) or _has_calls(token):
            time.sleep(_LOOK_AGAIN)  # all tasks wait, and the thread needs the interpreter
        else:
            jump()

    jumping._autojump = jump_if_nobody_works  # noqa: SLF001  as above


def _frames(before: frozenset[threading.Thread], loop: int) -> Iterator[FrameType]:
    frames: Mapping[int, FrameType] = getattr(sys, "_current_frames")()  # noqa: B009  public, for all its name
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is not None and thread.ident != loop and (thread not in before or _is_kept_by_trio(frame)):
            yield frame


def _works(frame: FrameType) -> bool:
    if frame.f_code is _SELECTING:
        return False
    values = frame.f_locals
    if frame.f_code is _POOLED:
        return "work_item" in values or bool(values["work_queue"].qsize())
    if frame.f_code is _WAITING:
        # Whoever is notified is taken off this list at once, and wakes up when the interpreter lets it.
        return values.get("waiter") not in values["self"]._waiters  # noqa: SLF001  a condition tells nobody
    if frame.f_code is _trio_waiting():
        worker: Any = values["self"]
        return worker._job is not None or not worker._worker_lock.locked()  # noqa: SLF001  as above
    return True


def _is_kept_by_trio(frame: FrameType | None) -> bool:
    """Whether it is a thread that trio keeps, whatever it does just now."""
    while frame is not None:
        if frame.f_code is _trio_waiting():
            return True
        frame = frame.f_back
    return False


def _trio_waiting() -> CodeType:
    cache: Any = importlib.import_module("trio._core._thread_cache")  # trio says nowhere else which are idle
    code: CodeType = cache.WorkerThread._work.__code__  # noqa: SLF001  as above
    return code


def _has_calls(token: trio.lowlevel.TrioToken) -> bool:
    """Whether a thread has called the loop since it looked."""
    queue = cast("Any", token)._reentry_queue  # noqa: SLF001  as above
    return bool(queue.queue or queue.idempotent_queue)
