"""A worker that fails too often is left alone for a while. Source: the circuit breaker of M. Nygard, Release It!."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, final

import attrs
import trio

from .._core.lifecycle import SwitchState
from .._core.policies import KillSwitchPolicy

_PARTS: Final = 20
"""A window moves in so many steps, so that what is remembered does not grow with the calls."""


@final
@attrs.define(eq=False)
class _Part:
    """The calls of one part of the window."""

    since: float
    calls: int = 0
    failures: int = 0


@final
@attrs.define(eq=False, repr=False)
class KillSwitch:
    """Counts the calls of one worker that fail, and holds calls back while it is open.

    Whoever was let in by `enter` says with `leave` how the call ended.
    """

    policy: KillSwitchPolicy
    on_change: Callable[[SwitchState, str], None]
    """Told each change and its reason."""
    state: SwitchState = attrs.field(default=SwitchState.CLOSED, init=False)
    reason: str = attrs.field(default="", init=False)
    """Of the last change."""
    _parts: deque[_Part] = attrs.field(factory=deque[_Part], init=False)
    until: float = attrs.field(default=0.0, init=False)
    """While it is open: when a call tries whether the worker works again, by `trio.current_time()`."""
    _probing: bool = attrs.field(default=False, init=False)
    _void: bool = attrs.field(default=False, init=False)
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    async def enter(self) -> bool:
        """Wait until a call may be made; return whether it is the one that tries whether the worker works again.

        Cancellation: Is a checkpoint if it waits. If cancelled, no call was let in.
        """
        while self.state is not SwitchState.CLOSED and not self._void:
            if self._probing:
                await self._waiting.park()
            elif trio.current_time() < self.until:
                with trio.move_on_at(self.until):
                    await self._waiting.park()
            else:
                self._probe()
                return True  # noqa: ASYNC910  whoever calls goes on to a call, which is one
            await trio.lowlevel.checkpoint_if_cancelled()  # it may have been, in the turn in which it was let in
        return False  # noqa: ASYNC910

    def leave(self, *, is_probe: bool, failed: bool | None) -> None:
        """Note how a call ended; `failed` is None for one that was cut and says nothing of the worker."""
        if is_probe:
            self._probing = False
        if self._void or failed is None:
            self._waiting.unpark_all()  # one of them may try
        elif is_probe:
            self._judge(failed=failed)
        elif self.state is SwitchState.CLOSED:
            self._count(failed=failed)

    def void(self) -> None:
        """Let everybody in from here on: the worker will not come back, and they are to be told."""
        self._void = True
        self._waiting.unpark_all()

    def _probe(self) -> None:
        self._probing = True
        if self.state is SwitchState.OPEN:
            self._change(SwitchState.HALF_OPEN, f"paused for {self.policy.pause:g} s; one call tries it")

    def _judge(self, *, failed: bool) -> None:
        if failed:
            self._open("the call that tried it failed")
        else:
            self._parts.clear()
            self._change(SwitchState.CLOSED, "the call that tried it went well")
            self._waiting.unpark_all()

    def _count(self, *, failed: bool) -> None:
        part = self._part(trio.current_time())
        part.calls += 1
        part.failures += failed
        if not failed:
            return
        calls, failures = sum(part.calls for part in self._parts), sum(part.failures for part in self._parts)
        if calls >= self.policy.minimum and failures >= self.policy.failure_rate * calls:
            self._open(f"{failures} of {calls} calls failed within {self.policy.window:g} s")

    def _part(self, now: float) -> _Part:
        """Return the part of the window that counts calls at a time, and forget those that are past."""
        while self._parts and self._parts[0].since <= now - self.policy.window:
            self._parts.popleft()
        if not self._parts or self._parts[-1].since <= now - self.policy.window / _PARTS:
            self._parts.append(_Part(now))
        return self._parts[-1]

    def _open(self, reason: str) -> None:
        self.until = trio.current_time() + self.policy.pause
        self._change(SwitchState.OPEN, reason)
        self._waiting.unpark_all()  # each waits for the end of the pause, and the first of them tries

    def _change(self, state: SwitchState, reason: str) -> None:
        self.state, self.reason = state, reason
        self.on_change(state, reason)
