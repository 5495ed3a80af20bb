"""Who makes attempts, and the cancel scope that they are made in."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Final, final

import attrs
import trio

from .._core.broker import Delivery
from .attempt import Verdict, Work
from .judge import Judge, passing
from .pool import Instance

_FAR: Final = 4.0
"""Seconds; a deadline that is farther away is the next on the grid."""
_GRID: Final = 1 / 16
"""Seconds between two of them."""


@final
@attrs.define(eq=False, repr=False)
class Leash:
    """The cancel scope in which a task makes one attempt after the other: one for each costs as much as many a handler.

    Its deadline is that of the last call, or a little later. Once cancelled it is used up: whoever has entered it
    leaves it, and finds in `verdict` what becomes of the call that was cut, if one was.
    """

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    call: tuple[Judge, Work, Instance] | None = attrs.field(default=None, init=False)
    """The call that is under way, and who judges it when it is cut."""
    began: float = 0.0
    """When the attempt began, in `trio.current_time()`."""
    deadline: float = attrs.field(default=math.inf, init=False)
    """That of the scope, which takes longer to ask."""
    verdict: Verdict | None = attrs.field(default=None, init=False)
    """On the call that was cut with the scope; None if there was none."""

    @contextmanager
    def entered(self) -> Generator[None]:
        """Be in the scope; judge the call that is cut with it."""
        try:
            with self.scope:
                yield
        except BaseException as error:  # noqa: ASYNC103  what was raised while it was cut becomes the verdict
            if self.call is None or passing(error):
                raise
            judge, work, _ = self.call
            self.verdict = judge.raised(work, error)
        else:
            if self.call is not None:
                judge, work, instance = self.call
                self.verdict = judge.cut(work, instance)

    def hold(self, deadline: float) -> None:
        """Set the deadline of a call.

        One that is 4 s away or farther comes up to 1/16 s late, so that calls which begin soon after one another have
        the same one: to set it costs as much as many a handler.

        Args:
            deadline: In `trio.current_time()`; may be infinite.
        """
        if _FAR <= deadline - self.began < math.inf:
            deadline += -deadline % _GRID
        if self.deadline != deadline:
            self.scope.deadline = self.deadline = deadline

    def loosen(self) -> None:
        """Forget the deadline of the last call, before something else is done in the scope."""
        if self.deadline != math.inf:  # to set it costs much
            self.scope.deadline = self.deadline = math.inf


@final
@attrs.define(eq=False, repr=False)
class CallTime:
    """How long a call may take that is made outside of the event loop, where it may have to wait before it begins."""

    _hold: Callable[[float], None]
    """Sets the deadline of the call."""
    _latest: float
    """When nobody wants it any more."""
    _left: float
    """Seconds that its handler may take."""
    _since: float = attrs.field(factory=trio.current_time, init=False)

    @contextmanager
    def stopped(self) -> Generator[None]:
        """Do what is inside without its counting to the handler."""
        self._left -= trio.current_time() - self._since
        self._hold(self._latest)
        try:
            yield
        finally:
            self._since = trio.current_time()
            self._hold(min(self._latest, self._since + self._left))


class Collecting(ABC):
    """Calls handlers with many payloads at once."""

    __slots__ = ()

    @abstractmethod
    async def join(self, work: Work) -> Verdict:
        """Wait until the handler was called with this attempt among others; return what becomes of this one.

        Cancellation: Is a checkpoint. Those who wait and the call are cancelled together.
        """

    @abstractmethod
    def close(self) -> None:
        """Say that nothing new comes: what is collected is handled at once."""


class Attempting(ABC):
    """Runs the attempts at the deliveries of one dispatcher."""

    __slots__ = ()

    @abstractmethod
    def attempt(self, delivery: Delivery, leash: Leash | None = None) -> Awaitable[Verdict]:
        """Run one attempt; what goes wrong in it becomes part of the verdict.

        Args:
            delivery: What is to be handled.
            leash: A scope that this task is in, and that may serve for the call.

        Cancellation: Is a checkpoint if a handler is called and waits. If cancelled, the handler was; if its leash
            was, `Leash.verdict` says what becomes of it.
        """

    @abstractmethod
    def close(self) -> None:
        """Say that nothing new comes: what waits for a worker that is paused or gone goes back, batches are called."""
