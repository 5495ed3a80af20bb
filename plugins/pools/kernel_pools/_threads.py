"""Calls handlers in threads."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast, final

import attrs
import trio
from typing_extensions import override

from kernel import Return
from kernel.abc import Context, Executor, PlainWorker, untimed

from ._frames import append_frames
from ._places import Places
from ._telling import note_deadline, told


@final
@attrs.define(eq=False, repr=False)
class ThreadPool(Executor):
    """Threads of this process: for what blocks. They share the interpreter, so that they do not compute side by side.

    A thread cannot be ended. A call that is cancelled is left to itself and keeps its place until it ends; its
    delivery goes back to its source, and may be handled twice.
    """

    _context: Context
    _places: Places
    _threads: trio.CapacityLimiter
    """As many as there are places: trio has one limit for all that do not name their own."""

    @override
    async def call(
        self, worker: PlainWorker, method: str, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> object:
        since = trio.current_time()
        with untimed():
            if not await self._places.take(worker.id):
                return Return()
        call, leave = _bound(worker, method), self._leaving()
        with told(self._context, worker.id, since=since):
            note_deadline()
            try:
                return await trio.to_thread.run_sync(
                    functools.partial(_perform, leave, call, args, kwargs),
                    abandon_on_cancel=True,
                    limiter=self._threads,
                )
            except trio.Cancelled as cut:
                leave.show_where(cut)
                raise
            finally:
                leave.unless_begun()

    def _leaving(self) -> _Leaving:
        return _Leaving(self._places, trio.lowlevel.current_trio_token())

    @override
    def drain(self, worker: str) -> None:
        self._places.drain(worker)

    @override
    def resume(self, worker: str) -> None:
        self._places.resume(worker)


@final
@attrs.define(eq=False, repr=False)
class _Leaving:
    """Gives a place back when the thread has ended, also one that nobody waits for any more."""

    _places: Places
    _token: trio.lowlevel.TrioToken
    _unclaimed: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    """Who takes it first, thread or loop, gives the place back."""
    _thread: int = attrs.field(default=0, init=False)
    """The thread that the call is in; 0 while it is in none."""

    def begin(self) -> bool:
        """Return whether the thread may begin: nobody has given up on it."""
        if not self._unclaimed.acquire(blocking=False):
            return False
        self._thread = threading.get_ident()
        return True

    def show_where(self, cut: BaseException) -> None:
        """Have a cancellation say where the call stands that it leaves to itself: what is reported names that line."""
        thread = self._thread
        frame = sys._current_frames().get(thread)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  no other way
        if frame is not None and self._thread == thread:  # else the thread had gone on to another call
            append_frames(cut, frame, until=_perform.__code__)

    def end(self) -> None:
        """Give the place back, from the thread; if there is no loop any more, there are no places either."""
        self._thread = 0
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._places.leave)

    def unless_begun(self) -> None:
        """Give the place back, from the loop, if the thread has not begun; then it does nothing."""
        if self._unclaimed.acquire(blocking=False):
            self._places.leave()


def _perform(
    leave: _Leaving, call: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]
) -> object:
    if not leave.begin():
        return None
    try:
        return call(*args, **kwargs)
    finally:
        leave.end()


def _bound(worker: PlainWorker, method: str) -> Callable[..., object]:
    if worker.is_function:
        return functools.partial(worker.use, **worker.arguments) if worker.arguments else worker.use
    return cast("Callable[..., object]", getattr(cast("Any", worker.instance), method))
