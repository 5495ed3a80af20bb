"""Faults at a named call: the n-th call of a method of a resource fails, stalls, loses its answer or is cancelled.

    faults = Faults()
    faults.fail("driver/queue", "send", at=3, error=UnroutableError("no queue"))
    broker = faulty(broker, faults, "driver/queue")

Nothing is left to chance and nothing depends on time, so a test that uses it fails the same way every time.
"""

from __future__ import annotations

import inspect
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast, final

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    AnyCall: TypeAlias = Callable[..., object]

ResourceT = TypeVar("ResourceT")


@final
@attrs.frozen(eq=False, repr=False)
class Stall:
    """A call that hangs."""

    reached: trio.Event = attrs.field(factory=trio.Event)
    """Set when the call is made."""
    release: trio.Event = attrs.field(factory=trio.Event)
    """Set it to let the call go on."""


@final
@attrs.frozen
class _Fail:
    error: BaseException


@final
@attrs.frozen
class _Lose:
    error: BaseException


@final
@attrs.frozen(repr=False)
class _Cancel:
    scope: trio.CancelScope


_Fault: TypeAlias = _Fail | _Lose | _Cancel | Stall


@final
@attrs.define(eq=False, repr=False)
class Faults:
    """The script of a test: what goes wrong, and at which call."""

    _script: dict[tuple[str, str, int], _Fault] = attrs.field(factory=dict[tuple[str, str, int], _Fault], init=False)
    _calls: Counter[tuple[str, str]] = attrs.field(factory=Counter[tuple[str, str]], init=False)

    def fail(self, name: str, method: str, *, error: BaseException, at: int = 1) -> None:
        """Have a call raise instead of being made.

        Args:
            name: What the resource was called in `faulty`.
            method: Name of the method.
            error: What is raised.
            at: Which call of the method; 1 is the first.
        """
        self._plan(name, method, at, _Fail(error))

    def lose(self, name: str, method: str, *, error: BaseException, at: int = 1) -> None:
        """Have a call made and then raise instead of returning, as when the answer is lost."""
        self._plan(name, method, at, _Lose(error))

    def stall(self, name: str, method: str, *, at: int = 1) -> Stall:
        """Have an asynchronous call hang before it is made, until it is released or cancelled."""
        stall = Stall()
        self._plan(name, method, at, stall)
        return stall

    def cancel(self, name: str, method: str, *, scope: trio.CancelScope, at: int = 1) -> None:
        """Cancel a scope at a call, before it is made."""
        self._plan(name, method, at, _Cancel(scope))

    def count(self, name: str, method: str) -> int:
        """Return how often a method was called."""
        return self._calls[name, method]

    def next_fault(self, name: str, method: str) -> _Fault | None:
        """Count a call and return what is to go wrong with it, if anything."""
        self._calls[name, method] += 1
        return self._script.get((name, method, self._calls[name, method]))

    def _plan(self, name: str, method: str, at: int, fault: _Fault) -> None:
        if at < 1:
            raise ValueError(f"calls are counted from 1, not from {at}")
        self._script[name, method, at] = fault


def faulty(resource: ResourceT, faults: Faults, name: str) -> ResourceT:
    """Return a stand-in that passes everything on to a resource, except for what the script says.

    Calls of methods are counted and may fail: special methods (`async with`, `len`) too. Other attributes pass
    through. `isinstance` answers as for the resource itself. What a method returns is not wrapped; but the fault of
    a method made by `contextlib.asynccontextmanager` strikes on entry.

    Args:
        resource: Any object; it is not changed.
        faults: The script.
        name: What the script calls the resource.
    """
    kind = type(resource)
    namespace: dict[str, object] = {
        special: _special(special)
        for special in dir(kind)
        if special.startswith("__") and special not in _OWN and callable(getattr(kind, special))
    }
    namespace["__class__"] = property(lambda _: kind)  # what isinstance asks when the type itself does not fit
    stand_in: object = type(f"Faulty{kind.__name__}", (_Faulty,), namespace)(resource, faults, name)
    return cast("ResourceT", stand_in)


class _Faulty:
    """Base of the classes that `faulty` makes."""

    def __init__(self, resource: object, faults: Faults, name: str) -> None:
        object.__setattr__(self, "_faulty", (resource, faults, name))

    def __getattr__(self, attribute: str) -> object:
        resource, faults, name = object.__getattribute__(self, "_faulty")
        value: object = getattr(resource, attribute)
        return _scripted(value, faults, name, attribute) if inspect.isroutine(value) else value

    def __setattr__(self, attribute: str, value: object) -> None:
        resource, _, _ = object.__getattribute__(self, "_faulty")
        setattr(resource, attribute, value)


_OWN = (
    frozenset(dir(object)) - {"__eq__", "__ne__", "__hash__", "__repr__", "__str__"}
    | set(vars(_Faulty))
    | {
        "__slots__",
        "__class_getitem__",
        "__attrs_init__",
        "__del__",
    }
)
"""Special methods of the stand-in itself."""


def _special(attribute: str) -> AnyCall:
    def call(self: object, *args: object) -> object:
        method = cast("AnyCall", _Faulty.__getattr__(cast("_Faulty", self), attribute))
        return method(*args)

    return call


def _scripted(method: AnyCall, faults: Faults, name: str, attribute: str) -> AnyCall:
    def call(*args: object, **kwargs: object) -> object:
        fault = faults.next_fault(name, attribute)
        if fault is None:
            return method(*args, **kwargs)
        if inspect.iscoroutinefunction(method):
            return _awaited(method, args, kwargs, fault)
        if inspect.isasyncgenfunction(getattr(method, "__wrapped__", None)):
            return _entered(method, args, kwargs, fault)
        return _called(method, args, kwargs, fault)

    return call


def _called(method: AnyCall, args: tuple[object, ...], kwargs: dict[str, object], fault: _Fault) -> object:
    if isinstance(fault, Stall):
        raise TypeError(f"{method!r} is not asynchronous: it cannot be stalled")
    _before(fault)
    result = method(*args, **kwargs)
    _after(fault)
    return result


async def _awaited(method: AnyCall, args: tuple[object, ...], kwargs: dict[str, object], fault: _Fault) -> object:
    await _reach(fault)
    result = await cast("Awaitable[object]", method(*args, **kwargs))
    _after(fault)
    return result


@asynccontextmanager
async def _entered(
    method: AnyCall, args: tuple[object, ...], kwargs: dict[str, object], fault: _Fault
) -> AsyncGenerator[object]:
    await _reach(fault)
    async with cast("AbstractAsyncContextManager[object]", method(*args, **kwargs)) as value:
        _after(fault)
        yield value


async def _reach(fault: _Fault) -> None:
    if isinstance(fault, Stall):
        fault.reached.set()
        await fault.release.wait()
        return
    _before(fault)
    await trio.lowlevel.checkpoint()


def _before(fault: _Fault) -> None:
    if isinstance(fault, _Fail):
        raise fault.error
    if isinstance(fault, _Cancel):
        fault.scope.cancel()


def _after(fault: _Fault) -> None:
    if isinstance(fault, _Lose):
        raise fault.error
