"""One life of a component: three cancel scopes that nest, and nothing else.

`whole` holds everything from the constructor to the last close. `drain` holds the wait for what is in flight. `inner`
holds what the component does until it is asked to stop: a dispatcher's `accept`, a worker's `run`, a driver's mere
being there. To stop is to cancel `inner`, to put the drain deadline on `drain` and the last deadline on `whole`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Final, final

import attrs
import trio

CLOSING_SHARE: Final = 0.75
"""The share of `stop_timeout` in which a component closes undisturbed; in the rest of it, it is cancelled."""


@final
@attrs.define(eq=False, repr=False)
class Life:
    """One life of a component, as its body and its supervisor share it."""

    start_timeout: float
    stop_timeout: float
    _on_started: Callable[[object], None]
    _on_closing: Callable[[], None]
    whole: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    drain: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    inner: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    turn: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """What a component waits in that may take nothing new, but must not close yet; cancelled when it may."""
    start: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """What the supervisor waits in for the start: past its deadline the component should be closing."""
    patience: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """What the supervisor waits in for the end: past its deadline the component is left behind."""
    ready_at: float = attrs.field(default=math.inf, init=False)
    is_open: bool = attrs.field(default=False, init=False)
    """Whether what it opens is open, so that a stop closes it in order."""
    recalled: bool = attrs.field(default=False, init=False)
    """Whether the supervisor has decided that it ends; how it ends from then on is not its own doing."""
    stopping: bool = attrs.field(default=False, init=False)
    """Whether it was asked to end: its turn has come."""
    cut: bool = attrs.field(default=False, init=False)
    """Whether something had to be cancelled at a deadline of the stop."""
    component: object = attrs.field(default=None, init=False)
    """The object that lives it."""
    error: BaseException | None = attrs.field(default=None, init=False)
    """What ended it, as far as that is known before it has closed."""
    _shields: set[trio.CancelScope] | None = attrs.field(default=None, init=False)
    """None for the many lives that shield nothing."""

    @property
    def is_ready(self) -> bool:
        """Whether `started` was called."""
        return self.ready_at < math.inf

    def begin(self) -> trio.CancelScope:
        """Return `whole`, to be entered, with the deadline of the start on it."""
        self._start_by(trio.current_time() + self.start_timeout)
        return self.whole

    def end(self) -> None:
        """Say that it is over, so that nobody waits for that any more."""
        self.start.cancel()
        self.patience.cancel()

    def started(self, value: object = None) -> None:
        """Say that the component is ready, and what others get of it. Has the shape of `trio.TaskStatus`.

        Raises:
            RuntimeError: if it was called before.
        """
        if self.is_ready:
            raise RuntimeError("started() was called twice")
        self.ready_at = trio.current_time()
        self.is_open = True
        self._start_by(math.inf)
        self.start.cancel()
        self._on_started(value)

    def stop_accepting(self) -> None:
        """Cancel what brings in new work; what is in flight goes on."""
        self.inner.cancel()

    def request_stop(self, *, drain_until: float) -> None:
        """Ask for the end. A component that is not ready yet is cancelled at once.

        Asking again can only bring the end forward.

        Args:
            drain_until: `trio.current_time()` until which what is in flight may finish.
        """
        self.stopping = True
        self.inner.cancel()
        self.turn.cancel()
        self.drain.deadline = min(self.drain.deadline, drain_until)
        self._close_within(max(drain_until, trio.current_time()))
        if not self.is_open:
            self.whole.cancel()

    @contextmanager
    def untimed(self) -> Generator[None]:
        """Say that all is open, and do what is inside without its counting to the start."""
        left = self.whole.deadline - trio.current_time()
        self.is_open = True
        self._start_by(math.inf)
        yield
        self._start_by(trio.current_time() + left)

    @contextmanager
    def working(self) -> Generator[None]:
        """Do what is inside until it is asked to stop; what follows is closing, within `stop_timeout`."""
        try:
            with self.inner:
                yield
        except BaseException as error:
            self.note(error)
            raise
        finally:
            self.drained()

    def note(self, error: BaseException) -> None:
        """Keep what ends it, for the case that it does not get so far as to raise it."""
        if not isinstance(error, trio.Cancelled):
            self.error = error

    def drained(self) -> None:
        """Say that nothing is in flight any more: what follows is closing, within `stop_timeout`.

        Also for a component that ends by itself, whose closing nobody else bounds.
        """
        self._close_within(trio.current_time())
        self._on_closing()

    def _start_by(self, deadline: float) -> None:
        if not (self.stopping or self.whole.cancel_called):  # else its end is set already
            self.whole.deadline = self.start.deadline = deadline
            self.patience.deadline = deadline + self.stop_timeout

    def shield(self, seconds: float) -> AbstractContextManager[None]:
        """Keep what is inside from being cancelled: for so long, and no longer than this life may close undisturbed.

        What begins later than that has a quarter of `stop_timeout`: nobody waits for this life any more.

        Raises:
            trio.TooSlowError: if the time is over.
        """
        now, last = trio.current_time(), self.whole.deadline if self.is_ready or self.stopping else math.inf
        last = max(last, now + self.stop_timeout * (1 - CLOSING_SHARE))
        if self._shields is None:
            self._shields = set()
        return _Shield(trio.CancelScope(deadline=min(now + seconds, last), shield=True), self._shields)

    def _close_within(self, since: float) -> None:
        self.whole.deadline = min(self.whole.deadline, since + self.stop_timeout * CLOSING_SHARE)
        for scope in self._shields or ():
            scope.deadline = min(scope.deadline, self.whole.deadline)
        self.patience.deadline = min(self.patience.deadline, since + self.stop_timeout)
        self.start.cancel()


@final
@attrs.define(eq=False, repr=False)
class _Shield(AbstractContextManager[None]):
    """What `Life.shield` returns: a class, since a generator costs a third more, and each answer of a call is settled in one."""

    _scope: trio.CancelScope
    _shields: set[trio.CancelScope]
    """Those of its life."""

    def __enter__(self) -> None:
        self._shields.add(self._scope)
        self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._shields.remove(self._scope)
        is_caught = self._scope.__exit__(kind, error, traceback)
        if self._scope.cancelled_caught:
            raise trio.TooSlowError
        return is_caught
