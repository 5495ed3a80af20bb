"""The stand-in for a resource, whose calls go through a script of faults."""

from __future__ import annotations

import inspect
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

import trio

from ._calling import Way, is_there, way_of
from ._faults import Cancel, Fail, Lose, Stall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from ._faults import Fault, Faults

    AnyCall: TypeAlias = Callable[..., object]

ResourceT = TypeVar("ResourceT")


def faulty(resource: ResourceT, faults: Faults, name: str) -> ResourceT:
    """Return a stand-in that passes everything on to a resource, except for what the script says.

    Calls of methods are counted and may fail: special methods (`async with`, `len`) too. Other attributes pass
    through. `isinstance` answers as for the resource itself. What a method returns is not wrapped; but the fault of
    a method that returns an asynchronous context manager strikes on entry. What the resource makes up for any name or
    item, as an `RpcClient` does, calls the stand-in.

    Args:
        resource: Any object; it is not changed.
        faults: The script.
        name: What the script calls the resource.

    Raises:
        ValueError: if the script has a method that the resource has not, or stalls one that is not asynchronous.
    """
    kind = type(resource)
    namespace: dict[str, object] = {
        special: _special(kind, special)
        for special in dir(kind)
        if special.startswith("__") and special not in _OWN and callable(getattr(kind, special))
    }
    namespace["__class__"] = property(lambda _: kind)  # what isinstance asks when the type itself does not fit
    faults.meet(resource, name)
    stand_in: object = type(f"Faulty{kind.__name__}", (_Faulty,), namespace)(resource, faults, name)
    return cast("ResourceT", stand_in)


class _Faulty:
    """Base of the classes that `faulty` makes."""

    def __init__(self, resource: object, faults: Faults, name: str) -> None:
        object.__setattr__(self, "_faulty", (resource, faults, name))

    def __getattr__(self, attribute: str) -> object:
        resource, faults, name = object.__getattribute__(self, "_faulty")
        make_up = getattr(cast("type[object]", type(resource)), "__getattr__", None)
        if make_up is not None and not is_there(resource, attribute):
            return make_up(self, attribute)
        value: object = getattr(resource, attribute)
        is_scripted = inspect.isroutine(value) or (callable(value) and faults.scripts(name, attribute))
        return _scripted(cast("AnyCall", value), faults, name, attribute, resource) if is_scripted else value

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


def _special(kind: type, attribute: str) -> AnyCall:
    own = getattr(kind, attribute)

    def call(self: object, *args: object) -> object:
        resource, faults, name = object.__getattribute__(self, "_faulty")
        made_by = self if attribute == "__getitem__" and inspect.isfunction(own) else resource
        method = cast("AnyCall", own.__get__(made_by) if made_by is self else getattr(resource, attribute))
        return _scripted(method, faults, name, attribute, resource)(*args)

    return call


def _scripted(method: AnyCall, faults: Faults, name: str, attribute: str, resource: object) -> AnyCall:
    def call(*args: object, **kwargs: object) -> object:
        fault = faults.next_fault(name, attribute)
        if fault is None:
            return method(*args, **kwargs)
        match way_of(resource, attribute):
            case Way.AWAITED:
                return _awaited(method, args, kwargs, fault)
            case Way.ENTERED:
                return _entered(method, args, kwargs, fault)
            case Way.UNKNOWN if isinstance(fault, Stall):
                return _awaited(method, args, kwargs, fault)
            case _:
                return _called(method, args, kwargs, fault)

    return call


def _called(method: AnyCall, args: tuple[object, ...], kwargs: dict[str, object], fault: Fault) -> object:
    _before(fault)
    result = method(*args, **kwargs)
    if inspect.isawaitable(result):
        return _finished(result, fault)
    _after(fault)
    return result


async def _finished(result: Awaitable[object], fault: Fault) -> object:
    value = await result
    _after(fault)
    return value


async def _awaited(method: AnyCall, args: tuple[object, ...], kwargs: dict[str, object], fault: Fault) -> object:
    await _reach(fault)
    result = method(*args, **kwargs)
    if inspect.isawaitable(result):
        result = await result
    _after(fault)
    return result


@asynccontextmanager
async def _entered(
    method: AnyCall, args: tuple[object, ...], kwargs: dict[str, object], fault: Fault
) -> AsyncGenerator[object]:
    await _reach(fault)
    async with cast("AbstractAsyncContextManager[object]", method(*args, **kwargs)) as value:
        _after(fault)
        yield value


async def _reach(fault: Fault) -> None:
    if isinstance(fault, Stall):
        fault.reached.set()
        await fault.release.wait()
        return
    _before(fault)
    await trio.lowlevel.checkpoint()


def _before(fault: Fault) -> None:
    if isinstance(fault, Fail):
        raise fault.error
    if isinstance(fault, Cancel):
        fault.scope.cancel()


def _after(fault: Fault) -> None:
    if isinstance(fault, Lose):
        raise fault.error
