"""The children of a service inside another one, as a whole: whether it is up, has failed, or is started again."""

from __future__ import annotations

import math
from typing import Generic, TypeVar, final

import attrs
import trio

from .._core.policies import Restart, RestartHistory
from .._core.spec import ServiceSpec

ChildT = TypeVar("ChildT")


@final
@attrs.define(eq=False, repr=False)
class Unit(Generic[ChildT]):
    """A service inside another one."""

    id: str
    """`service/NAME`."""
    essential: bool = attrs.field(default=True, init=False)
    """Whether its failure is the failure of what it is inside of."""
    main: bool = attrs.field(default=False, init=False)
    """Whether what it is inside of ends with it."""
    history: RestartHistory | None = attrs.field(default=None, init=False)
    """Of its restarts as a whole; None if there are none."""
    outer: Unit[ChildT] | None = attrs.field(default=None, init=False)
    """What it is inside of; None if that is the service itself."""
    members: list[ChildT] = attrs.field(factory=list["ChildT"], init=False)
    """In start order."""
    vital: set[ChildT] = attrs.field(factory=set["ChildT"], init=False)
    """Those whose failure for good is its own."""
    working: set[ChildT] = attrs.field(factory=set["ChildT"], init=False)
    """Those that work by themselves and have not ended."""
    failed: bool = attrs.field(default=False, init=False)
    """Whether none of it starts again."""
    restarting: bool = attrs.field(default=False, init=False)
    _missing: set[ChildT] = attrs.field(factory=set["ChildT"], init=False)
    _whole_since: float = attrs.field(default=math.inf, init=False)

    def become(self, spec: ServiceSpec, outer: Unit[ChildT] | None, history: RestartHistory | None) -> None:
        """Be what a plan says, without members as yet."""
        self.essential, self.main, self.outer, self.history = spec.essential, spec.main, outer, history
        self.members, self.vital, self.working, self._missing = [], set(), set(), set()

    def add(self, child: ChildT, *, vital: bool, serves: bool, is_new: bool) -> None:
        """Take a member.

        Args:
            child: The next in start order.
            vital: Whether its failure for good is the unit's.
            serves: Whether it is up.
            is_new: Whether it starts anew, with which what has failed may start again.
        """
        self.members.append(child)
        self.failed = self.failed and not is_new
        if vital:
            self.vital.add(child)
            if not serves:
                self._missing.add(child)

    def note(self, child: ChildT, *, serves: bool) -> None:
        """Note that a member has moved: a row of restarts is over when all that is vital was up for long enough."""
        if child not in self.vital:
            return
        now = trio.current_time()
        if not serves and not self._missing and self.history and now - self._whole_since >= self.history.policy.window:
            self.history.forget()
        (self._missing.discard if serves else self._missing.add)(child)
        self._whole_since = math.inf if self._missing else min(self._whole_since, now)

    def next_wait(self) -> float | None:
        """Return the seconds after which it is started again, having failed; None if it is not."""
        if self.history is None or self.history.policy.policy is Restart.NEVER:
            return None
        return self.history.next_wait(healthy_for=max(0.0, trio.current_time() - self._whole_since))


def unnoticed(_unit: Unit[ChildT]) -> None:
    """Take no note of a unit that is done: nobody waits for one."""
