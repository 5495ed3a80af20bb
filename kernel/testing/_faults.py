"""Faults at a named call: the n-th call of a method of a resource fails, stalls, loses its answer or is cancelled.

    faults = Faults()
    faults.fail("driver/queue", "send", at=3, error=UnroutableError("no queue"))
    broker = faulty(broker, faults, "driver/queue")

Nothing is left to chance and nothing depends on time, so a test that uses it fails the same way every time. What cannot
be applied is an error at once, and what was never reached can be asked for.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, TypeAlias, final

import attrs
import trio

from .._core.words import did_you_mean, listed
from ._calling import Way, methods, way_of

if TYPE_CHECKING:
    from collections.abc import Collection

REACH_SECONDS: Final = 3600.0
"""Seconds on the test's clock that a test waits for a call that is to be stalled."""


@final
@attrs.frozen(eq=False, repr=False)
class Reached:
    """The moment at which a call is made that hangs."""

    _faults: Faults
    _call: str
    _event: trio.Event = attrs.field(factory=trio.Event, init=False)

    def is_set(self) -> bool:
        """Whether the call has been made."""
        return self._event.is_set()

    def set(self) -> None:
        """Say that the call is made. `faulty` calls it."""
        self._event.set()

    async def wait(self) -> None:
        """Wait until the call is made.

        Raises:
            AssertionError: listing the calls that were made, if this one is not within an hour of the test's clock.

        Cancellation: Is a checkpoint.
        """
        with trio.move_on_after(REACH_SECONDS):
            await self._event.wait()
            return
        raise AssertionError(f"{self._call} was not made within {REACH_SECONDS:g} s; calls: {self._faults.calls()}")


@final
@attrs.frozen(eq=False, repr=False)
class Stall:
    """A call that hangs."""

    reached: Reached
    """Set when the call is made."""
    release: trio.Event = attrs.field(factory=trio.Event)
    """Set it to let the call go on."""


@final
@attrs.frozen
class Fail:
    """A call that raises instead of being made."""

    error: BaseException


@final
@attrs.frozen
class Lose:
    """A call that is made, and raises."""

    error: BaseException


@final
@attrs.frozen(repr=False)
class Cancel:
    """A call that cancels a scope."""

    scope: trio.CancelScope


Fault: TypeAlias = Fail | Lose | Cancel | Stall


@final
@attrs.define(eq=False, repr=False)
class Faults:
    """The script of a test: what goes wrong, and at which call.

    A name or method that does not exist is a `ValueError`: when it is scripted, or, if that is earlier, as soon as
    it is known what exists. Give each service a script of its own.
    """

    may_miss: bool = attrs.field(default=False, kw_only=True)
    """Whether it is all right if a fault is never reached, as in a test that tries one call after the other."""
    _script: dict[tuple[str, str, int], Fault] = attrs.field(factory=dict[tuple[str, str, int], Fault], init=False)
    _calls: Counter[tuple[str, str]] = attrs.field(factory=Counter[tuple[str, str]], init=False)
    _names: Collection[str] | None = attrs.field(default=None, init=False)
    _resources: dict[str, object] = attrs.field(factory=dict[str, object], init=False)
    _told: bool = attrs.field(default=False, init=False)

    def fail(self, name: str, method: str, *, error: BaseException, at: int = 1) -> None:
        """Have a call raise instead of being made.

        Args:
            name: What the resource was called in `faulty`: the id of its driver, in `open_kernel`.
            method: Name of the method.
            error: What is raised.
            at: Which call of the method; 1 is the first.

        Raises:
            ValueError: if there is no such name or method.
        """
        self._plan(name, method, at, Fail(error))

    def lose(self, name: str, method: str, *, error: BaseException, at: int = 1) -> None:
        """Have a call made and then raise instead of returning, as when the answer is lost."""
        self._plan(name, method, at, Lose(error))

    def stall(self, name: str, method: str, *, at: int = 1) -> Stall:
        """Have an asynchronous call hang before it is made, until it is released or cancelled.

        Raises:
            ValueError: if there is no such name or method, or it returns nothing that is awaited or entered.
        """
        stall = Stall(Reached(self, f"call {at} of {name}.{method}"))
        self._plan(name, method, at, stall)
        return stall

    def cancel(self, name: str, method: str, *, scope: trio.CancelScope, at: int = 1) -> None:
        """Cancel a scope at a call, before it is made."""
        self._plan(name, method, at, Cancel(scope))

    def count(self, name: str, method: str) -> int:
        """Return how often a method was called."""
        return self._calls[name, method]

    def calls(self) -> str:
        """Return what was called how often, as a text."""
        return listed(f"{name}.{method} ({count})" for (name, method), count in sorted(self._calls.items()))

    def unreached(self) -> list[str]:
        """Return each fault whose call has not been made."""
        return [f"call {at} of {name}.{method}" for name, method, at in self._script if self._calls[name, method] < at]

    def check_reached(self) -> None:
        """Fail if a fault was never reached. `open_kernel` does so at its end, and the fixture after the test.

        Raises:
            AssertionError: naming each, and the calls that were made; but not a second time.
        """
        unreached = [] if self.may_miss or self._told else self.unreached()
        self._told = True
        if unreached:
            raise AssertionError(f"faults that were never reached: {listed(unreached)}; calls: {self.calls()}")

    def injected(self, error: BaseException) -> bool:
        """Return whether an error is one of the script's."""
        return any(isinstance(fault, Fail | Lose) and fault.error is error for fault in self._script.values())

    def scripts(self, name: str, method: str) -> bool:
        """Return whether the script has a fault for a method."""
        return any((name, method) == call[:2] for call in self._script)

    def next_fault(self, name: str, method: str) -> Fault | None:
        """Count a call and return what is to go wrong with it, if anything."""
        self._calls[name, method] += 1
        return self._script.get((name, method, self._calls[name, method]))

    def meet(self, resource: object, name: str) -> None:
        """Learn what a name stands for. `faulty` calls it.

        Raises:
            ValueError: if the script has a method of it that does not exist, or stalls one that cannot be.
        """
        self._resources[name] = resource
        self._check_all()

    def allow_only(self, names: Collection[str]) -> None:
        """Learn which names there are. `open_kernel` calls it.

        Raises:
            ValueError: if the script has another one.
        """
        self._names = names
        self._check_all()

    def _check_all(self) -> None:
        for (name, method, _), fault in self._script.items():
            self._check(name, method, fault)

    def _plan(self, name: str, method: str, at: int, fault: Fault) -> None:
        if at < 1:
            raise ValueError(f"calls are counted from 1, not from {at}")
        self._check(name, method, fault)
        self._script[name, method, at] = fault

    def _check(self, name: str, method: str, fault: Fault) -> None:
        if self._names is not None and name not in self._names:
            raise ValueError(f'no driver "{name}"{did_you_mean(name, self._names)}; there are: {listed(self._names)}')
        if name not in self._resources:
            return
        has = methods(self._resources[name], method)
        if method not in has:
            raise ValueError(f'{name} has no method "{method}"{did_you_mean(method, has)}; it has: {listed(has)}')
        if isinstance(fault, Stall) and way_of(self._resources[name], method) is Way.CALLED:
            raise ValueError(f"{name}.{method} is not asynchronous: it cannot be stalled")
